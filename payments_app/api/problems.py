"""Renders every error as problem details (RFC 9457), ``application/problem+json``."""

import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, has_request_context, json, request
from werkzeug.exceptions import HTTPException

from payments_app.api.json_response import JsonResponse
from payments_app.api.problem_catalog import CATALOG, title_of
from payments_app.errors import RETRY_AFTER_SECONDS, AppError
from payments_app.i18n.locale import translate
from payments_app.observability.link_tokens import without_link_token
from payments_app.observability.logging import current_request_id

log = logging.getLogger(__name__)


def problem_response(error: AppError) -> Response:
    """Render an error as problem details."""
    return _respond(problem_body(error), error.headers)


def problem_body(error: AppError) -> dict[str, Any]:
    """The body of an error response, for storing it; without ``instance`` outside a request."""
    return _body(
        code=error.code,
        status=error.status,
        detail=error.message,
        retryable=error.is_retryable,
        errors=error.errors,
        data=error.data,
    )


def init_app(app: Flask) -> None:
    """Register the handlers for all errors that the app, Flask or a library raises."""
    app.register_error_handler(AppError, problem_response)
    app.register_error_handler(HTTPException, _http_exception_response)
    app.register_error_handler(Exception, _unexpected)


def _http_exception_response(error: HTTPException) -> Response:
    """Errors of Flask and Werkzeug. Our own texts replace theirs, which are in English only."""
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:  # a redirect is no error
        return error.get_response()  # type: ignore[return-value]  # Werkzeug's class, which Flask accepts
    code = error.name.lower().replace(" ", "-")
    known = CATALOG.get(code)
    # Headers such as Allow and Retry-After stay; the body and its type are ours.
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    body = _body(
        code=code,
        status=error.code,
        detail=known.text if known is not None else error.description or HTTPStatus(error.code).description,
        retryable=error.code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
    )
    return _respond(body, headers)


def _unexpected(error: Exception) -> Response:
    """A bug (500). The response has the request id only; the log has the traceback."""
    log.error("Unexpected error", exc_info=error)
    problem = CATALOG["internal-error"]
    body = _body(code=problem.code, status=problem.status, detail=problem.text, retryable=True)
    return _respond(body, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _respond(body: dict[str, Any], headers: dict[str, str]) -> Response:
    return JsonResponse(json.dumps(body), status=body["status"], headers=headers, mimetype="application/problem+json")


def _body(
    *,
    code: str,
    status: int,
    detail: str,
    retryable: bool,
    errors: dict[str, list[str]] | None = None,
    data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    text = translate(detail)
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": title_of(code, status),
        "status": status,
        "detail": text,
        "instance": without_link_token(request.path) if has_request_context() else None,
        "message": text,
        "retryable": retryable,
        "request_id": current_request_id(),
        "errors": errors and {field: [translate(reason) for reason in reasons] for field, reasons in errors.items()},
        "data": data,
    }
    return {name: value for name, value in body.items() if value is not None}
