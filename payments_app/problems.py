"""The one place that shows errors: as problem details (RFC 9457), ``application/problem+json``."""

import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from payments_app.errors import RETRY_AFTER_SECONDS, AppError
from payments_app.logs import current_request_id

log = logging.getLogger(__name__)


def problem_response(error: AppError) -> Response:
    """Render an error as problem details."""
    return _problem(
        code=error.code,
        status=error.status,
        detail=error.message,
        retryable=error.is_retryable,
        errors=error.errors,
        data=error.data,
        headers=error.headers,
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
    return _problem(
        code=error.name.lower().replace(" ", "-"),
        status=error.code,
        detail=error.description or status.description,
        retryable=error.code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
        headers=headers,
    )


def _unexpected(error: Exception) -> Response:
    """A bug of ours. The caller learns the request id, the log learns the rest."""
    log.error("unexpected error, request %s", current_request_id(), exc_info=error)
    return _problem(
        code="internal-error",
        status=500,
        detail="Something went wrong on our side; the same request with the same key is safe to send again.",
        retryable=True,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _problem(
    *,
    code: str,
    status: int,
    detail: str,
    retryable: bool,
    errors: dict[str, list[str]] | None = None,
    data: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.path,
        "message": detail,
        "retryable": retryable,
        "request_id": current_request_id(),
    }
    if errors is not None:
        body["errors"] = errors
    if data is not None:
        body["data"] = data
    return Response(json.dumps(body), status=status, headers=headers, mimetype="application/problem+json")
