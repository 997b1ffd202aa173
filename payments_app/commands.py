"""Shared by all ``flask`` commands: options, output, and plain one-line errors."""

import getpass
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from payments_app import clock, money
from payments_app.db.engine import describe_driver_error, lift_time_limits
from payments_app.errors import AppError, NotReady
from payments_app.observability.logging import warnings_only
from payments_app.printable import printable

log = logging.getLogger(__name__)

Item = TypeVar("Item")

# Characters of an actor in the audit trail.
_MAX_ACTOR_LENGTH = 64

_NOT_READY = (
    "The database is not ready for this release: `check` says why. On the demo, run ./payments instead of flask."
)

# Exit statuses as in shells: 128 plus the signal's number (SIGINT, SIGPIPE).
INTERRUPTED = 130
BROKEN_PIPE = 141

# In JSON's escapes: a surrogate pair, a backslash, or a lone surrogate, which not every parser accepts.
_SURROGATES = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\\\|(?P<lone>\\u[dD][89a-fA-F]..)")

json_option = click.option("--json", "as_json", is_flag=True, help="Print each row as a line of JSON.")


class AmountType(click.ParamType[int]):
    """Parses an amount in major units, such as ``5000`` or ``5000.50``, to minor units."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        amount_minor = money.from_text(str(value))
        if amount_minor is None:
            self.fail(f"{value!r} is not an amount: write it like 5000 or 5000.50", param, ctx)
        return amount_minor


# The ids that a 64-bit column can hold.
ID = click.IntRange(1, 2**63 - 1)


class DayType(click.ParamType[date]):
    """Parses a day of the clinic: ``2026-01-31``, ``today`` or ``yesterday``."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        today = clock.now().astimezone(current_app.config["SETTINGS"].clinic_timezone).date()
        if value in (words := {"today": today, "yesterday": today - timedelta(days=1)}):
            return words[value]
        try:
            return datetime.strptime(value, "%Y-%m-%d").date()  # noqa: DTZ007  # a day alone
        except ValueError:
            self.fail(f"{value!r} is not a day: write it like 2026-01-31, today or yesterday", param, ctx)


DAY = DayType()


class CommandFailed(click.ClickException):
    """An error, shown as one line, with exit status 2. Status 1 is a result: ``payments audit`` found violations."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@contextmanager
def plain_ending() -> Iterator[None]:
    """End the command with one plain line for any error: a traceback does not help an operator.

    Exit status 2; 130 after Ctrl-C; 141, without a line, after a closed pipe (``| head``).
    """
    try:
        yield
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError, CommandFailed):
        raise
    except click.UsageError as error:
        raise CommandFailed(error.format_message()) from error
    except click.Abort as error:
        say(err=True)  # ends the question's line
        if isinstance(error.__context__, KeyboardInterrupt):
            _end_interrupted()
        raise CommandFailed("The question got no answer: standard input is closed.") from error
    except KeyboardInterrupt:
        _end_interrupted()
    except BrokenPipeError:
        # Text left in the buffers would raise the error again when the process ends.
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        raise SystemExit(BROKEN_PIPE) from None
    except AppError as error:
        raise CommandFailed(_in_one_line(error)) from error
    except Exception as error:
        if isinstance(error, OSError):  # such as a full disk, if standard output is a file on it
            sys.stdout = io.StringIO()
        log.debug("The command failed", exc_info=error)
        raise CommandFailed(f"{describe_driver_error(error)} (LOG_LEVEL=DEBUG shows the traceback)") from error


class Command(click.Command):
    """A command whose errors are one plain line."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        with plain_ending():
            _require_utf8(args)
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with plain_ending(), warnings_only():
            return super().invoke(ctx)


class CommandGroup(AppGroup):
    """A group of commands without a statement timeout, whose errors are one plain line.

    ``has_time_limits``: it keeps the timeouts of requests, for a command that runs on and on as the service does.
    """

    def __init__(self, *args: Any, has_time_limits: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._has_time_limits = has_time_limits

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        with plain_ending():
            _require_utf8(args)
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with plain_ending():
            if not self._has_time_limits:
                with_appcontext(lift_time_limits)()
            with warnings_only():
                return super().invoke(ctx)


def say(line: str = "", *, err: bool = False) -> None:
    """Print a line for people. Every line goes through this function, or through ``is_agreed``."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    # Characters outside the terminal's encoding are printed as escapes.
    click.echo(printable(line).encode(encoding, "backslashreplace").decode(encoding), err=err)


def quantity(number: int, noun: str) -> str:
    """``1 payment``, ``1,200 payments``: for nouns whose plural ends in an s."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def say_json(facts: Any) -> None:
    """Print a line of ASCII JSON for programs."""
    text = json.dumps(facts, default=clock.to_text)
    click.echo(_SURROGATES.sub(lambda found: r"\ufffd" if found["lone"] else found[0], text))


def is_agreed(question: str) -> bool:
    """Ask a yes/no question on standard error, so that a pipe does not swallow it."""
    return click.confirm(printable(question), err=True)


def operator() -> str:
    """The actor of a command for the audit trail: the operator's login name, such as ``command:maria``."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # the user id has no name, as in a container
        name = "unknown"
    return printable(f"command:{name}")[:_MAX_ACTOR_LENGTH]


def show_rows(columns: Sequence[str], rows: Iterable[dict[str, Any]], *, as_json: bool, nothing: str) -> None:
    """Print rows as an aligned table, or as lines of JSON. Only the table holds all rows in memory."""
    if as_json:
        for row in rows:
            say_json(row)
        return
    table = [[_text(row[column]) for column in columns] for row in rows]
    if not table:
        say(nothing)
        return
    titles = [column.replace("_", " ") for column in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *table, strict=True)]
    for cells in (titles, *table):
        say("  ".join(_aligned(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def show_facts(facts: dict[str, Any], *, as_json: bool = False, err: bool = False) -> None:
    """Print one record: a line per field, or one line of JSON."""
    if as_json:
        say_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        say(f"{name.replace('_', ' '):<{width}}  {_text(value)}".rstrip(), err=err)


def with_progress(items: Iterable[Item], work: Callable[[Item], Any], *, label: str, length: int | None = None) -> None:
    """Call ``work`` for each item, with a progress bar on standard error."""
    with click.progressbar(items, label=label, length=length, file=sys.stderr) as bar:
        for item in bar:
            work(item)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value))  # escapes count for the column's width


def _aligned(cell: str, width: int) -> str:
    return f"{cell:>{width}}" if cell.replace(".", "", 1).isdigit() else f"{cell:<{width}}"


def _in_one_line(error: AppError) -> str:
    reasons = [f"{field}: {reason}" for field, texts in (error.errors or {}).items() for reason in texts]
    # "Not ready" is often the wrong database, for example if `flask` was run instead of ./payments on the demo.
    text = _NOT_READY if isinstance(error, NotReady) else " ".join(reasons) or error.message
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.__cause__ is not None:
        # The API hides the cause from clients; an operator may see it.
        text += f" ({describe_driver_error(error.__cause__)})"
    return text


def _require_utf8(arguments: Sequence[str]) -> None:
    """Python decodes other bytes to lone surrogates, which no database accepts."""
    for argument in arguments:
        if re.search("[\ud800-\udfff]", argument):
            raise CommandFailed(f"{argument} is not UTF-8.")


def _end_interrupted() -> NoReturn:
    if sys.stderr.isatty():  # the terminal shows ^C on the current line
        say(err=True)
    say("Stopped.", err=True)
    raise SystemExit(INTERRUPTED) from None
