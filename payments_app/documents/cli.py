"""``payments export``, which writes payments as CSV for a spreadsheet or an accountant."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import click
from flask import current_app

from config import Settings
from payments_app.accounts.system_user import system_caller
from payments_app.commands import DAY, quantity, say
from payments_app.documents import export
from payments_app.payments.queries import Filter

# Payments between two lines of progress.
PROGRESS_STEP = 10_000


@click.command("export")
@click.option("--from", "first", type=DAY, required=True, help="First day: 2026-01-31, today or yesterday.")
@click.option("--to", "last", type=DAY, required=True, help="Last day; it is exported too.")
@click.option(
    "--by",
    type=click.Choice(["created", "completed"]),
    default="created",
    show_default=True,
    help="Which time has to be within these days.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="File. Default: standard output.")
def export_payments(first: date, last: date, by: str, output: Path | None) -> None:
    """Write payments as CSV, newest first, with the columns of GET /api/v1/payments.csv.

    The days are those of CLINIC_TIMEZONE. Progress goes to standard error. The file is complete or not there: it
    replaces another one of that name at the end, and only its owner may read it.
    """
    if last < first:
        raise click.UsageError("--to is before --from.")
    settings: Settings = current_app.config["SETTINGS"]

    def midnight(day: date) -> datetime:
        return datetime.combine(day, time(), settings.clinic_timezone).astimezone(UTC)

    within: dict[str, Any] = {
        f"{by}_from": midnight(first),
        f"{by}_to": midnight(last + timedelta(days=1)),
    }
    count = 0

    def counted(pages: Iterator[export.ExportedPage]) -> Iterator[export.ExportedPage]:
        nonlocal count
        for page in pages:
            yield page
            before, count = count, count + len(page)
            if before // PROGRESS_STEP != count // PROGRESS_STEP:
                say(f"{quantity(count, 'payment')} so far", err=True)

    pages = counted(export.pages(Filter(**within, per_page=export.PAGE_SIZE), caller=system_caller()))
    with _opened(output) as file:
        for text in export.lines(pages, time_zone=settings.clinic_timezone):
            file.write(text.encode())
    say(quantity(count, "payment"), err=True)


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}-", delete=False) as file:
        unfinished = Path(file.name)
        try:
            yield file  # type: ignore[misc]  # a wrapper of one
        except BaseException:
            unfinished.unlink()
            raise
    unfinished.replace(output)
