"""Logging: one event per line, and the request id that connects log lines, responses and audit rows.

Our own events use structlog: ``get_logger(__name__).info("Payment: created", payment_id=7)``. They and the messages of
libraries go to one handler: JSON lines in production, readable text elsewhere.
"""

import json
import logging
import re
import sys
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import structlog
from flask import Flask, g, has_request_context, request
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer, JSONRenderer, StackInfoRenderer, TimeStamper
from structlog.stdlib import BoundLogger, LoggerFactory, ProcessorFormatter, filter_by_level
from structlog.typing import EventDict, ExcInfo, Processor

from payments_app.observability.link_tokens import without_link_token
from payments_app.printable import printable

# The request ids that a proxy or a client may choose: no spaces, quotes or control characters, which could forge log
# lines.
_ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# At DEBUG, the first logs Stripe's responses with their client secrets, the second every row that is read.
_SECRETS_AT_DEBUG = ("stripe", "sqlalchemy.engine.Engine")

# Created once: json.dumps would create a new encoder for each line.
_JSON = json.JSONEncoder(default=repr)


def init_app(app: Flask) -> None:
    """Log to standard error."""
    settings = app.config["SETTINGS"]
    structlog.configure(
        processors=[filter_by_level, ProcessorFormatter.wrap_for_formatter],
        logger_factory=LoggerFactory(),
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(as_json=settings.is_production, colors=sys.stderr.isatty()))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("payments_app").setLevel(settings.log_level)
    for name in _SECRETS_AT_DEBUG:
        logging.getLogger(name).addFilter(_is_above_debug)
    _skip_unused_fields()


def _skip_unused_fields() -> None:
    """Do not collect thread, process and source position, which no line shows: that takes a third of a line's time.

    Source: "Optimization" in the standard library's logging HOWTO.
    """
    logging._srcfile = None  # noqa: SLF001  # as in the HOWTO
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def get_logger(name: str) -> BoundLogger:
    """The logger of a module, for events with fields."""
    log: BoundLogger = structlog.get_logger(name)
    return log


def formatter(*, as_json: bool, colors: bool = False) -> logging.Formatter:
    """The formatter for all events, our own and those of libraries."""
    render: tuple[Processor, ...] = (
        (JSONRenderer(serializer=lambda event, **_options: _JSON.encode(event)),)
        if as_json
        # Not rich, even if it is installed: its tracebacks show local variables, also passwords.
        else (_escape_line_breaks, ConsoleRenderer(colors=colors, exception_formatter=plain_traceback))
    )
    tracebacks = ExceptionRenderer(_format_traceback)
    ordered: tuple[Processor, ...] = (TimeStamper(fmt="iso", utc=True), _put_in_order, StackInfoRenderer(), tracebacks)
    return _Formatter(processors=[*ordered, *render, _hide_link_tokens])


class _Formatter(ProcessorFormatter):
    """Formats our own events without the copy of their record that structlog makes: a third of a line's time."""

    def format(self, record: logging.LogRecord) -> str:
        if not isinstance(record.msg, dict):  # of a library
            return super().format(record)
        line: Any = {**record.msg, "_record": record, "_from_structlog": True}
        for process in self.processors:
            line = process(None, record.levelname.lower(), line)
        return str(line)


def _hide_link_tokens(_logger: Any, _level: str, line: Any) -> str:
    """Removes them from the finished line: Flask and gunicorn log the path of a request that fails."""
    return without_link_token(line)


@contextmanager
def warnings_only() -> Iterator[None]:
    """Log only warnings and errors of this app: commands print their results themselves."""
    app_logger = logging.getLogger("payments_app")
    level = app_logger.level
    app_logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        app_logger.setLevel(level)


def set_request_id() -> None:
    """Give the request the id that its proxy or client has chosen, or a new one."""
    requested_id = request.headers.get("X-Request-ID", "")
    g.request_id = requested_id if _ACCEPTED_REQUEST_ID.fullmatch(requested_id) else uuid.uuid4().hex


def current_request_id() -> str | None:
    """The id of the current request; None in a command."""
    return g.get("request_id") if has_request_context() else None


def _put_in_order(_logger: Any, level: str, event: EventDict) -> EventDict:
    """Order the fields: first those of every line, then those of this event."""
    record: logging.LogRecord = event.pop("_record")
    del event["_from_structlog"]
    common = {
        "timestamp": event.pop("timestamp"),
        "level": level,
        "event": event.pop("event"),
        "logger": record.name,
        "request_id": current_request_id(),
    }
    return {**common, **event}


def _escape_line_breaks(_logger: Any, _level: str, event: EventDict) -> EventDict:
    """Escape values, so that none can forge a log line (the JSON renderer does so itself).

    A traceback keeps its lines; they are indented, so that none looks like the beginning of an event.
    """
    lines = event.pop("exception", "").splitlines()
    escaped = {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}
    if lines:
        escaped["exception"] = "\n".join(f"    {printable(line)}" for line in lines)
    return escaped


def _format_traceback(exc_info: ExcInfo) -> str:
    """The traceback; of a PostgreSQL error only the first message, because DETAIL shows the refused row."""
    formatted = "".join(traceback.format_exception(*exc_info)).rstrip("\n")
    for error in _chain(exc_info[1]):
        if isinstance(error, psycopg.Error) and error.diag.message_primary:
            cause = " ".join(filter(None, (error.sqlstate, error.diag.constraint_name)))
            formatted = formatted.replace(str(error), f"{error.diag.message_primary} ({cause})")
    return formatted


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, each once: an error that was raised from itself would never end."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
