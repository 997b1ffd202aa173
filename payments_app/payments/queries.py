"""Reads payments for display, as plain rows: they are not changed, so the session need not track objects.

Each read is one statement, so that the whole response shows one moment, and PostgreSQL plans it once.
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

# Its fields are the columns, which the type checker does not know.
PaymentRow: Any = namedtuple("PaymentRow", PAYMENTS.c.keys())  # type: ignore[misc]

# Cached list statements, at 6 KiB each. Clients use a few. A client that requests every page size with every filter
# would otherwise fill the cache with thousands of them, and double a worker's memory.
CACHED_STATEMENTS = 256

# The relationships that are shown with a payment, by name: this package does not import refunds.
RELATED = ("invoices", "tax_records", "refunds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Filters of a list of payments; the page starts after the position ``after``, a (created_at, id)."""

    status: str | None
    consultation_id: int | None
    after: tuple[datetime, int] | None
    per_page: int


@read_transaction
def show(session: Session, payment_id: int, *, caller: Caller) -> Any:
    """A payment's row with its ``invoices``, ``tax_records`` and ``refunds``, oldest first.

    Raises:
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient (403).
    """
    whole = _payment_with_related()
    rows = whole.statement.rows(session, {"payment_id": payment_id})
    if not rows:
        raise PaymentNotFound
    payment = whole.read(rows)
    caller.require_access(PaymentNotFound, patient_id=payment.user_id, consultation_id=payment.consultation_id)
    return payment


@read_transaction
def list_page(session: Session, filters: Filter, *, caller: Caller) -> Page[Any]:
    """Rows of the caller's payments, newest first; of all payments if the caller is an admin."""
    conditions = {"user_id": None if caller.is_admin else caller.user_id, "consultation_id": filters.consultation_id}
    values: dict[str, Any] = {name: value for name, value in conditions.items() if value is not None}
    if filters.after is not None:
        values["after_created_at"], values["after_id"] = filters.after
    status = None if filters.status is None else PaymentStatus(filters.status)
    rows = _page(frozenset(values), status, filters.per_page).rows(session, values)
    return Page.cut([PaymentRow._make(row) for row in rows], filters.per_page)


@lru_cache(CACHED_STATEMENTS)
def _page(names: frozenset[str], status: PaymentStatus | None, per_page: int) -> DirectStatement:
    """The statement of one list. Page size and status are literals, not parameters: PostgreSQL makes one plan for all
    values of a parameter. It would assume a page of a tenth of the table, and a rare status to be a common one.
    """
    query = select(PAYMENTS).where(PAYMENTS.c.deleted_at.is_(None)).limit(literal_column(str(per_page + 1)))
    if status is not None:
        query = query.where(PAYMENTS.c.status == literal_column(f"'{status.value}'"))
    for name in names & {"user_id", "consultation_id"}:
        query = query.where(PAYMENTS.c[name] == _value(name))
    if "after_id" in names:
        position = tuple_(_value("created_at", "after_created_at"), _value("id", "after_id"))
        query = query.where(tuple_(PAYMENTS.c.created_at, PAYMENTS.c.id) < position)
    return DirectStatement(query.order_by(PAYMENTS.c.created_at.desc(), PAYMENTS.c.id.desc()))


def _value(column: str, name: str | None = None) -> Any:
    return bindparam(name or column, type_=PAYMENTS.c[column].type)


class _PaymentWithRelated:
    """The statement that reads a payment with its related rows, and the function that splits the rows again.

    It joins, because only one statement sees all of them at one moment. ``read`` splits each joined row by its columns.
    """

    def __init__(self) -> None:
        relationships = inspect(Payment).relationships
        tables = [table for name in RELATED if isinstance(table := relationships[name].mapper.local_table, Table)]
        joined = PAYMENTS
        for table in tables:
            joined = joined.outerjoin(table, table.c.payment_id == PAYMENTS.c.id)  # type: ignore[assignment]  # a join
        statement = select(PAYMENTS, *tables).select_from(joined).order_by(*(table.c.id for table in tables))
        statement = statement.where(PAYMENTS.c.id == _value("id", "payment_id"), PAYMENTS.c.deleted_at.is_(None))
        self.statement = DirectStatement(statement)
        # Its fields are the tables' columns, which the type checker does not know.
        self._payment: Any = namedtuple("Payment", [*PAYMENTS.c.keys(), *RELATED])  # type: ignore[misc]
        self._width = len(PAYMENTS.c)
        self._records: list[Any] = [namedtuple(table.name, table.c.keys()) for table in tables]

    def read(self, rows: Sequence[Sequence[Any]]) -> Any:
        start, related = self._width, []
        for record in self._records:
            end = start + len(record._fields)
            different = dict.fromkeys(tuple(row[start:end]) for row in rows)
            related.append([record._make(values) for values in different if values[0] is not None])
            start = end
        return self._payment._make((*rows[0][: self._width], *related))


_payment_with_related = cache(_PaymentWithRelated)  # made on first use: only then is every model imported, refunds too
