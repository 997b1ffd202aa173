"""What all ``flask`` commands of ours have in common."""

import getpass
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click
from flask.cli import AppGroup, with_appcontext

from payments_app import clock, logs, money
from payments_app.engines import lift_statement_timeout
from payments_app.errors import AppError

Item = TypeVar("Item")

# What the audit trail keeps of an actor.
_MAX_ACTOR_LENGTH = 64

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


class Commands(AppGroup):
    """A group whose commands may take their time, and end in one plain line when something is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with_appcontext(lift_statement_timeout)()
            with logs.warnings_only():
                return super().invoke(ctx)
        except AppError as error:
            raise CommandFailed(_in_one_line(error)) from error
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            raise CommandFailed(error.format_message()) from error


def operator() -> str:
    """Who runs the command, for the audit trail: the name they are logged in with, such as ``command:maria``."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # no name for this number, as in a container
        name = "unknown"
    return f"command:{name}"[:_MAX_ACTOR_LENGTH]


def show_rows(columns: Sequence[str], rows: Iterable[dict[str, Any]], *, as_json: bool, nothing: str) -> None:
    """Rows as an aligned table, or as lines of JSON. A table's rows are held in memory, JSON's are not."""
    if as_json:
        for row in rows:
            click.echo(_json(row))
        return
    table = [[_text(row[column]) for column in columns] for row in rows]
    if not table:
        click.echo(nothing)
        return
    titles = [column.replace("_", " ") for column in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *table, strict=True)]
    for cells in (titles, *table):
        click.echo("  ".join(_aligned(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def show_facts(facts: dict[str, Any], *, as_json: bool = False, err: bool = False) -> None:
    """One thing, a fact a line."""
    if as_json:
        click.echo(_json(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {_text(value)}".rstrip(), err=err)


def with_progress(items: Iterable[Item], work: Callable[[Item], Any], *, label: str, length: int | None = None) -> None:
    """Do the work for each item, and show on standard error how far it has come."""
    with click.progressbar(items, label=label, length=length, file=sys.stderr) as bar:
        for item in bar:
            work(item)


def _json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, default=clock.to_text)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _aligned(cell: str, width: int) -> str:
    return f"{cell:>{width}}" if cell.replace(".", "", 1).isdigit() else f"{cell:<{width}}"


def _in_one_line(error: AppError) -> str:
    reasons = [f"{field}: {text}" for field, texts in (error.errors or {}).items() for text in texts]
    return " ".join(reasons) or error.message
