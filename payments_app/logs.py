"""Log lines and the request id that ties a log line, an answer and an event row together."""

import logging
import re
import uuid

from flask import Flask, Response, g, has_request_context, request

# What a proxy or a client may choose: no blanks, quotes or control characters that could forge a log line.
_ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def init_app(app: Flask) -> None:
    """Log to standard error and give every request an id."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("payments_app").setLevel(app.config["SETTINGS"].log_level)
    app.before_request(_take_request_id)
    app.after_request(_return_request_id)


def current_request_id() -> str | None:
    """The id of the request being served; None in a command."""
    return g.get("request_id") if has_request_context() else None


def _take_request_id() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _ACCEPTED_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _return_request_id(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    return response
