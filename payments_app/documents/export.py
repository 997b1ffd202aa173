"""Payments as CSV (RFC 4180). Pages are read in short transactions, and none is open while bytes go out."""

import csv
from collections.abc import Iterator, Sequence
from datetime import datetime
from io import StringIO
from zoneinfo import ZoneInfo

from payments_app import money
from payments_app.accounts.caller import Caller
from payments_app.documents.repository import ExportedPayment, IssuedNote, list_exported
from payments_app.payments.models.credit_note import CreditNoteStatus
from payments_app.payments.queries import Filter

ExportedPage = Sequence[ExportedPayment]

# Rows per read: some 20 ms and 1 MiB.
PAGE_SIZE = 1_000

COLUMNS = (
    "payment_id",
    "created_at",
    "completed_at",
    "status",
    "patient_name",
    "patient_email",
    "consultation_id",
    "consultation_reference",
    "payment_method",
    "gateway",
    "currency",
    "amount",
    "received",
    "refunded",
    "tax",
    "invoice_number",
    "credit_notes",
    "transaction_id",
)

# Spreadsheets take a cell that begins so for a formula, which may send what is in the other cells to anybody.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def pages(filters: Filter, *, caller: Caller) -> Iterator[ExportedPage]:
    """The payments that the caller may see, newest first, ``filters.per_page`` at a time; the last may be empty."""
    following: Filter | None = filters
    while following is not None:
        rows, following = list_exported(following, caller=caller)
        yield rows


def lines(pages: Iterator[ExportedPage], *, time_zone: ZoneInfo) -> Iterator[str]:
    """The text of the file, a page at a time; the names of the columns come with the first one."""
    head: list[tuple[str, ...]] = [COLUMNS]
    for page in pages:
        text = StringIO()
        csv.writer(text).writerows([*head, *(_row(exported, time_zone) for exported in page)])
        head = []
        yield text.getvalue()


def _row(exported: ExportedPayment, time_zone: ZoneInfo) -> tuple[str, ...]:
    payment = exported.payment
    return (
        str(payment.id),
        _time(payment.created_at, time_zone),
        _time(payment.completed_at, time_zone),
        payment.status,
        harmless(exported.patient_name),
        harmless(exported.patient_email),
        str(payment.consultation_id),
        harmless(exported.consultation_reference or ""),
        payment.payment_method,
        payment.gateway,
        payment.currency,
        money.to_text(payment.amount_minor),
        money.to_text(payment.received_minor),
        money.to_text(payment.refunded_minor),
        money.to_text(exported.tax_minor),
        exported.invoice_number,
        "; ".join(map(_note, exported.credit_notes)),
        harmless(payment.transaction_id or ""),
    )


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula: if it looks like one, after an apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _note(note: IssuedNote) -> str:
    return f"{note.number} (void)" if note.status == CreditNoteStatus.VOID else note.number


def _time(at: datetime | None, time_zone: ZoneInfo) -> str:
    return "" if at is None else at.astimezone(time_zone).isoformat(timespec="seconds")
