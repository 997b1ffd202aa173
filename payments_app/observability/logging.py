"""Log lines, one event a line, and the request id that ties a line, an answer and an event row together.

Events of ours are structlog's: ``get_logger(__name__).info("Payment: created", payment_id=7)``. They go, like what
libraries say through the standard library's logging, to one handler: lines of JSON in production, readable elsewhere.
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
from flask import Flask, Response, g, has_request_context, request
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer, JSONRenderer, StackInfoRenderer, TimeStamper
from structlog.stdlib import BoundLogger, LoggerFactory, ProcessorFormatter, filter_by_level
from structlog.typing import EventDict, ExcInfo, Processor

from payments_app.observability.link_tokens import without_link_token
from payments_app.printable import printable

# What a proxy or a client may choose: no blanks, quotes or control characters that could forge a log line.
_ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# At DEBUG the first writes down Stripe's answers with their client secrets, the second every row that is read.
_TELL_SECRETS_AT_DEBUG = ("stripe", "sqlalchemy.engine.Engine")

# Made once: json.dumps makes a new one for each line.
_JSON = json.JSONEncoder(default=repr)


def init_app(app: Flask) -> None:
    """Log to standard error and give every request an id."""
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
    for name in _TELL_SECRETS_AT_DEBUG:
        logging.getLogger(name).addFilter(_is_above_debug)
    _find_out_less()
    app.before_request(_take_request_id)
    app.after_request(_return_request_id)


def _find_out_less() -> None:
    """What no line of ours says (thread, process, place in the code) need not be found out for each ("Optimization" in
    the standard library's logging HOWTO): a third of a line's time.
    """
    logging._srcfile = None  # noqa: SLF001  # so does the HOWTO
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def get_logger(name: str) -> BoundLogger:
    """The log of a module, for events with fields."""
    log: BoundLogger = structlog.get_logger(name)
    return log


def formatter(*, as_json: bool, colors: bool = False) -> logging.Formatter:
    """Make a line of whatever is logged, by us or by a library."""
    render: tuple[Processor, ...] = (
        (JSONRenderer(serializer=lambda event, **_options: _JSON.encode(event)),)
        if as_json
        # Not the traceback of rich, which is installed with Flask-Limiter: it shows local variables, passwords too.
        else (_stay_on_one_line, ConsoleRenderer(colors=colors, exception_formatter=plain_traceback))
    )
    tracebacks = ExceptionRenderer(_traceback_without_rows)
    ordered: tuple[Processor, ...] = (TimeStamper(fmt="iso", utc=True), _put_in_order, StackInfoRenderer(), tracebacks)
    return ProcessorFormatter(processors=[*ordered, *render, _hide_link_tokens])


def _hide_link_tokens(_logger: Any, _level: str, line: Any) -> str:
    """Of the finished line: Flask and gunicorn put the path of a request that fails into their words."""
    return without_link_token(line)


@contextmanager
def warnings_only() -> Iterator[None]:
    """For commands, whose own words say what they do."""
    ours = logging.getLogger("payments_app")
    level = ours.level
    ours.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        ours.setLevel(level)


def current_request_id() -> str | None:
    """The id of the request being served; None in a command."""
    return g.get("request_id") if has_request_context() else None


def _put_in_order(_logger: Any, level: str, event: EventDict) -> EventDict:
    """What every line has, before what only some have."""
    record: logging.LogRecord = event.pop("_record")
    del event["_from_structlog"]
    always = {
        "timestamp": event.pop("timestamp"),
        "level": level,
        "event": event.pop("event"),
        "logger": record.name,
        "request_id": current_request_id(),
    }
    return {**always, **event}


def _stay_on_one_line(_logger: Any, _level: str, event: EventDict) -> EventDict:
    """So that no value can pose as a line of ours (JSON escapes by itself).

    But for a traceback, whose lines are set in, so that none of them looks like the beginning of another event.
    """
    lines = event.pop("exception", "").splitlines()
    told = {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}
    if lines:
        told["exception"] = "\n".join(f"    {printable(line)}" for line in lines)
    return told


def _traceback_without_rows(exc_info: ExcInfo) -> str:
    """PostgreSQL explains its errors with the row that it refused (DETAIL): of its words the first message stays."""
    told = "".join(traceback.format_exception(*exc_info)).rstrip("\n")
    for error in _chain(exc_info[1]):
        if isinstance(error, psycopg.Error) and error.diag.message_primary:
            at = " ".join(filter(None, (error.sqlstate, error.diag.constraint_name)))
            told = told.replace(str(error), f"{error.diag.message_primary} ({at})")
    return told


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, each once: one that is raised from itself would otherwise never end."""
    told: set[int] = set()
    while error is not None and id(error) not in told:
        told.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _take_request_id() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _ACCEPTED_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _return_request_id(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    return response
