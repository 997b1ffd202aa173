"""The one place that shows errors: as problem details (RFC 9457), ``application/problem+json``."""

import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, has_request_context, json, request
from werkzeug.exceptions import HTTPException

from payments_app.errors import RETRY_AFTER_SECONDS, AppError
from payments_app.i18n.locale import told
from payments_app.i18n.messages import N_
from payments_app.observability.logging import current_request_id

log = logging.getLogger(__name__)

# What Flask, Werkzeug and Flask-Limiter would say in English alone.
_TEXTS: dict[int, str] = {
    HTTPStatus.NOT_FOUND: N_("There is nothing here."),
    HTTPStatus.METHOD_NOT_ALLOWED: N_("This cannot be done here."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: N_("The request is too large."),
    HTTPStatus.TOO_MANY_REQUESTS: N_("Too many requests; please wait a moment before you send this again."),
}


def problem_response(error: AppError) -> Response:
    """Render an error as problem details."""
    return _respond(problem_body(error), error.headers)


def problem_body(error: AppError) -> dict[str, Any]:
    """An error as it is shown, for an answer that is kept; outside a request without ``instance``."""
    return _body(
        code=error.code,
        status=error.status,
        detail=error.message,
        retryable=error.is_retryable,
        errors=error.errors,
        data=error.data,
    )


def init_app(app: Flask) -> None:
    """Register the one handler that answers for every error the app, Flask or a library raises."""
    app.register_error_handler(AppError, problem_response)
    app.register_error_handler(HTTPException, _http_exception_response)
    app.register_error_handler(Exception, _unexpected)


def _http_exception_response(error: HTTPException) -> Response:
    """What Flask and Werkzeug raise themselves: unknown routes, methods, over-long bodies."""
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:  # a redirect is no error
        return error.get_response()  # type: ignore[return-value]  # Werkzeug's class, which Flask accepts
    status = HTTPStatus(error.code)
    # Allow, Retry-After and their like belong to the error; the body and its type are ours.
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    body = _body(
        code=error.name.lower().replace(" ", "-"),
        status=error.code,
        detail=_TEXTS.get(status) or error.description or status.description,
        retryable=error.code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
    )
    return _respond(body, headers)


def _unexpected(error: Exception) -> Response:
    """A bug of ours. The caller learns the request id, the log learns the rest."""
    log.error("Unexpected error", exc_info=error)
    body = _body(
        code="internal-error",
        status=500,
        detail=N_("Something went wrong on our side; the same request with the same key is safe to send again."),
        retryable=True,
    )
    return _respond(body, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _respond(body: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(json.dumps(body), status=body["status"], headers=headers, mimetype="application/problem+json")


def _body(
    *,
    code: str,
    status: int,
    detail: str,
    retryable: bool,
    errors: dict[str, list[str]] | None = None,
    data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    text = told(detail)
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": text,
        "instance": request.path if has_request_context() else None,
        "message": text,
        "retryable": retryable,
        "request_id": current_request_id(),
        "errors": errors and {field: [told(reason) for reason in reasons] for field, reasons in errors.items()},
        "data": data,
    }
    return {name: value for name, value in body.items() if value is not None}
