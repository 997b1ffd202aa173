"""What all ``flask`` commands of ours have in common."""

import getpass
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import click
from flask.cli import AppGroup, with_appcontext

from payments_app import clock, money
from payments_app.db.engine import describe_driver_error, lift_statement_timeout
from payments_app.errors import AppError, NotReady
from payments_app.observability.logging import warnings_only
from payments_app.printable import printable

log = logging.getLogger(__name__)

Item = TypeVar("Item")

# What the audit trail keeps of an actor.
_MAX_ACTOR_LENGTH = 64

_NOT_READY = (
    "The database is not ready for this release: `check` says why. On the demo, run ./payments instead of flask."
)

# As shells say of a program that a signal has ended: 128, and the signal's number (SIGINT, SIGPIPE).
INTERRUPTED = 130
NOBODY_READS = 141

# In JSON's escapes: a pair, a backslash, or else one half of a pair. The last is what not every reader takes for JSON.
_SURROGATES = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\\\|(?P<lone>\\u[dD][89a-fA-F]..)")

json_option = click.option("--json", "as_json", is_flag=True, help="For programs: each row as a line of JSON.")


class AmountType(click.ParamType[int]):
    """An amount in major units, such as ``5000`` or ``5000.50``, as minor units."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        amount_minor = money.from_text(str(value))
        if amount_minor is None:
            self.fail(f"{value!r} is no amount: write it like 5000 or 5000.50", param, ctx)
        return amount_minor


# What a 64-bit column of ids holds.
ID = click.IntRange(1, 2**63 - 1)


class CommandFailed(click.ClickException):
    """Shown as one line. Exit 2, because 1 is a verdict: ``payments audit`` found something."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@contextmanager
def plain_ending() -> Iterator[None]:
    """Whatever goes wrong within ends the command in one plain line: no traceback, which says nothing to an operator.

    Exit 2; after Ctrl-C 130; if nobody reads any more (``| head``), no line, and 141.
    """
    try:
        yield
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError, CommandFailed):
        raise
    except click.UsageError as error:
        raise CommandFailed(error.format_message()) from error
    except click.Abort as error:
        say(err=True)  # the question is an open line
        if isinstance(error.__context__, KeyboardInterrupt):
            _end_interrupted()
        raise CommandFailed("Nobody was there to answer.") from error
    except KeyboardInterrupt:
        _end_interrupted()
    except BrokenPipeError:
        # What is left in the buffers would fail again, and be told, when the process ends.
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        raise SystemExit(NOBODY_READS) from None
    except AppError as error:
        raise CommandFailed(_in_one_line(error)) from error
    except Exception as error:
        if isinstance(error, OSError):  # such as a full disk, if standard output is a file on it
            sys.stdout = io.StringIO()
        log.debug("The command failed", exc_info=error)
        raise CommandFailed(f"{describe_driver_error(error)} (where: LOG_LEVEL=DEBUG shows it)") from error


class Command(click.Command):
    """One that ends in one plain line when something is wrong."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        with plain_ending():
            _require_utf8(args)
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with plain_ending(), warnings_only():
            return super().invoke(ctx)


class CommandGroup(AppGroup):
    """A group whose commands may take their time, and end in one plain line when something is wrong."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        with plain_ending():
            _require_utf8(args)
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with plain_ending():
            with_appcontext(lift_statement_timeout)()
            with warnings_only():
                return super().invoke(ctx)


def say(line: str = "", *, err: bool = False) -> None:
    """Print a line for people. All of them go through here, or through the questions below."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    # A terminal that has fewer letters is shown the others like what is not printable.
    click.echo(printable(line).encode(encoding, "backslashreplace").decode(encoding), err=err)


def say_json(facts: Any) -> None:
    """Print a line for programs: ASCII, so that nothing in it is anything but JSON."""
    text = json.dumps(facts, default=clock.to_text)
    click.echo(_SURROGATES.sub(lambda found: r"\ufffd" if found["lone"] else found[0], text))


def is_agreed(question: str) -> bool:
    """Ask on standard error, where a pipe does not take it away."""
    return click.confirm(printable(question), err=True)


def operator() -> str:
    """Who runs the command, for the audit trail: the name they are logged in with, such as ``command:maria``."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # no name for this number, as in a container
        name = "unknown"
    return printable(f"command:{name}")[:_MAX_ACTOR_LENGTH]


def show_rows(columns: Sequence[str], rows: Iterable[dict[str, Any]], *, as_json: bool, nothing: str) -> None:
    """Rows as an aligned table, or as lines of JSON. A table's rows are held in memory, JSON's are not."""
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
    """One thing, a fact a line."""
    if as_json:
        say_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        say(f"{name.replace('_', ' '):<{width}}  {_text(value)}".rstrip(), err=err)


def with_progress(items: Iterable[Item], work: Callable[[Item], Any], *, label: str, length: int | None = None) -> None:
    """Do the work for each item, and show on standard error how far it has come."""
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
    return printable(str(value))  # before the widths are found


def _aligned(cell: str, width: int) -> str:
    return f"{cell:>{width}}" if cell.replace(".", "", 1).isdigit() else f"{cell:<{width}}"


def _in_one_line(error: AppError) -> str:
    reasons = [f"{field}: {text}" for field, texts in (error.errors or {}).items() for text in texts]
    # Not ready is often another database than the one that was meant, such as a stray `flask` beside the demo.
    said = _NOT_READY if isinstance(error, NotReady) else " ".join(reasons) or error.message
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.__cause__ is not None:
        said += (
            f" ({describe_driver_error(error.__cause__)})"  # the service keeps it from strangers; this is an operator
        )
    return said


def _require_utf8(arguments: Sequence[str]) -> None:
    """Bytes that are none come as halves of pairs, which no database takes."""
    for argument in arguments:
        if re.search("[\ud800-\udfff]", argument):
            raise CommandFailed(f"{argument} is not UTF-8.")


def _end_interrupted() -> NoReturn:
    if sys.stderr.isatty():  # which shows ^C
        say(err=True)
    say("Stopped.", err=True)
    raise SystemExit(INTERRUPTED) from None
