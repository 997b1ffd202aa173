"""What is shown of payments, as rows: nobody changes them, so they need not become objects that the session tracks.

Each read is one statement, so that all of an answer is of one moment, and one that PostgreSQL plans once.
"""

from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Table, bindparam, inspect, literal_column, select, tuple_
from sqlalchemy.orm import Session

from payments_app.accounts.caller import Caller
from payments_app.db.base import table_of
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import read_transaction
from payments_app.errors import PaymentNotFound
from payments_app.pagination import Page
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus

PAYMENTS = table_of(Payment)

# Named as the columns are, which the type checker does not know.
PaymentRow: Any = namedtuple("PaymentRow", PAYMENTS.c.keys())  # type: ignore[misc]

# Statements of lists, at 6 KiB each. Clients ask for a few; one who asked for every size with every filter would have
# thousands kept, and a worker twice as large.
PAGES_KEPT = 256

# What is shown with a payment, by the names of its relationships: refunds are of a room that this one does not know.
BELONGING = ("invoices", "tax_records", "refunds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which payments a list shows; ``after`` is the (created_at, id) behind which the page begins."""

    status: str | None
    consultation_id: int | None
    after: tuple[datetime, int] | None
    per_page: int


@read_transaction
def show(session: Session, payment_id: int, *, caller: Caller) -> Any:
    """A payment's row with its ``invoices``, ``tax_records`` and ``refunds``, oldest first.

    Raises:
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's (403).
    """
    whole = _whole()
    rows = whole.statement.rows(session, {"payment_id": payment_id})
    if not rows:
        raise PaymentNotFound
    payment = whole.read(rows)
    caller.require_access(PaymentNotFound, patient_id=payment.user_id, consultation_id=payment.consultation_id)
    return payment


@read_transaction
def list_page(session: Session, shown: Filter, *, caller: Caller) -> Page[Any]:
    """Rows of the caller's payments, newest first: for an admin everybody's, for a payer their consultation's."""
    if caller.consultation_id is not None and shown.consultation_id not in (None, caller.consultation_id):
        return Page([], has_more=False)
    consultation_id = shown.consultation_id if caller.consultation_id is None else caller.consultation_id
    wanted = {"user_id": None if caller.is_admin else caller.user_id, "consultation_id": consultation_id}
    values: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if shown.after is not None:
        values["after_created_at"], values["after_id"] = shown.after
    status = None if shown.status is None else PaymentStatus(shown.status)
    rows = _page(frozenset(values), status, shown.per_page).rows(session, values)
    return Page.cut([PaymentRow._make(row) for row in rows], shown.per_page)


@lru_cache(PAGES_KEPT)
def _page(given: frozenset[str], status: PaymentStatus | None, per_page: int) -> DirectStatement:
    """Its size and its status are in the statement itself: PostgreSQL plans once for all values that it is not told,
    and would take any size for a tenth of the table, and a rare status for a common one.
    """
    wanted = select(PAYMENTS).where(PAYMENTS.c.deleted_at.is_(None)).limit(literal_column(str(per_page + 1)))
    if status is not None:
        wanted = wanted.where(PAYMENTS.c.status == literal_column(f"'{status.value}'"))
    for name in given & {"user_id", "consultation_id"}:
        wanted = wanted.where(PAYMENTS.c[name] == _value(name))
    if "after_id" in given:
        position = tuple_(_value("created_at", "after_created_at"), _value("id", "after_id"))
        wanted = wanted.where(tuple_(PAYMENTS.c.created_at, PAYMENTS.c.id) < position)
    return DirectStatement(wanted.order_by(PAYMENTS.c.created_at.desc(), PAYMENTS.c.id.desc()))


def _value(column: str, name: str | None = None) -> Any:
    return bindparam(name or column, type_=PAYMENTS.c[column].type)


class _Whole:
    """The statement that reads a payment and what belongs to it, and the reading of its rows.

    Joined, so that one statement sees all at one moment; what belongs together is told apart by its columns.
    """

    def __init__(self) -> None:
        relationships = inspect(Payment).relationships
        tables = [table for name in BELONGING if isinstance(table := relationships[name].mapper.local_table, Table)]
        joined = PAYMENTS
        for table in tables:
            joined = joined.outerjoin(table, table.c.payment_id == PAYMENTS.c.id)  # type: ignore[assignment]  # a join
        statement = select(PAYMENTS, *tables).select_from(joined).order_by(*(table.c.id for table in tables))
        statement = statement.where(PAYMENTS.c.id == _value("id", "payment_id"), PAYMENTS.c.deleted_at.is_(None))
        self.statement = DirectStatement(statement)
        # Named as the tables' columns are, which the type checker does not know.
        self._payment: Any = namedtuple("Payment", [*PAYMENTS.c.keys(), *BELONGING])  # type: ignore[misc]
        self._width = len(PAYMENTS.c)
        self._records: list[Any] = [namedtuple(table.name, table.c.keys()) for table in tables]

    def read(self, rows: Sequence[Sequence[Any]]) -> Any:
        start, belonging = self._width, []
        for record in self._records:
            end = start + len(record._fields)
            different = dict.fromkeys(tuple(row[start:end]) for row in rows)
            belonging.append([record._make(values) for values in different if values[0] is not None])
            start = end
        return self._payment._make((*rows[0][: self._width], *belonging))


_whole = cache(_Whole)  # not before all rooms are there, refunds among them
