"""Reads payments for display, as plain rows: they are not changed, so the session need not track objects.

Each read is one statement, so that the whole response shows one moment, and PostgreSQL plans it once.
"""

from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam, inspect, literal_column, select, tuple_
from sqlalchemy.orm import Session

from payments_app.accounts.caller import Caller
from payments_app.accounts.models import STAFF, Role, User
from payments_app.accounts.repository import (
    ID_BY_EMAIL,
    USER_STATE,
    UserState,
    as_spelled_and_normalized,
    require_valid,
)
from payments_app.consultations.models import Consultation
from payments_app.db.base import constant, table_of
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
    """Filters of a list of payments, all of which apply; the page starts after ``after``, a (created_at, id).

    Times from the first moment that is shown to the first one that is not.
    """

    status: str | None = None
    consultation_id: int | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    completed_from: datetime | None = None
    completed_to: datetime | None = None
    payment_method: str | None = None
    needs_review: bool | None = None
    transaction_id: str | None = None
    patient_id: int | None = None
    patient_email: str | None = None
    after: tuple[datetime, int] | None = None
    per_page: int

    def values(self) -> dict[str, Any]:
        """What the statement is sent with: each condition but those that stand in it as words."""
        names = {field.name for field in fields(self)} - {"status", "needs_review", "after", "per_page"}
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        if "patient_email" in values:
            values.update(as_spelled_and_normalized(values.pop("patient_email")))
        if self.after is not None:
            values["after_created_at"], values["after_id"] = self.after
        return values


# Of these PostgreSQL has to know the values to plan well: a day or ten years, a method of ten payments or of a million.
_PLANNED_BY_VALUES = frozenset(
    {
        "created_from",
        "created_to",
        "completed_from",
        "completed_to",
        "payment_method",
        "transaction_id",
        "patient_id",
        "normalized_email",
        "registered_by",
    }
)


@read_transaction
def show(session: Session, payment_id: int, *, caller: Caller) -> Any:
    """A payment's row with its ``invoices``, ``tax_records`` and ``refunds``, oldest first.

    Raises:
        NotAuthenticated: a member of staff, or a booking system, who was disabled or whose tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient, or the user of such a caller has another role by now (403).
    """
    # Of a program and of a payer, the user was read with the API key or the link.
    is_compared = caller.is_user and caller.role in STAFF
    whole = _payment_with_related(with_registered_by=caller.role == Role.BOOKING, with_user=is_compared)
    rows = whole.statement.rows(session, {"payment_id": payment_id, "user_id": caller.user_id})
    if is_compared and rows:
        caller.require_unchanged(whole.user(rows))
    elif is_compared:
        require_valid(session, caller)
    if not rows:
        raise PaymentNotFound
    payment = whole.read(rows)
    caller.require_access(
        PaymentNotFound,
        patient_id=payment.user_id,
        consultation_id=payment.consultation_id,
        registered_by=whole.registered_by(rows),
    )
    return payment


@read_transaction
def list_page(session: Session, filters: Filter, *, caller: Caller) -> Page[Any]:
    """Rows of payments, newest first: the patient's, those of the booking system's or the link's, or all (admin)."""
    return read_page(session, filters, caller=caller)


def read_page(session: Session, filters: Filter, *, caller: Caller) -> Page[Any]:
    """``list_page`` as a part of a transaction."""
    values = filters.values()
    match caller.role:
        case Role.ADMIN:
            pass
        case Role.BOOKING:
            values["registered_by"] = caller.user_id
        case Role.PAYER:
            if filters.consultation_id not in (None, caller.consultation_id):
                return Page([], has_more=False)
            values["user_id"], values["consultation_id"] = caller.user_id, caller.consultation_id
        case _:
            values["user_id"] = caller.user_id
    status = None if filters.status is None else PaymentStatus(filters.status)
    rows = _page(frozenset(values), status, filters.per_page, filters.needs_review).rows(session, values)
    return Page.cut([PaymentRow._make(row) for row in rows], filters.per_page)


@lru_cache(CACHED_STATEMENTS)
def _page(
    names: frozenset[str], status: PaymentStatus | None, per_page: int, needs_review: bool | None = None
) -> DirectStatement:
    """The statement of one list. Page size and status are literals, not parameters: PostgreSQL makes one plan for all
    values of a parameter. It would assume a page of a tenth of the table, and a rare status to be a common one.
    """
    query = select(PAYMENTS).where(PAYMENTS.c.deleted_at.is_(None)).limit(literal_column(str(per_page + 1)))
    if status is not None:
        query = query.where(PAYMENTS.c.status == constant(status))
    if needs_review is not None:
        query = query.where(PAYMENTS.c.needs_review if needs_review else ~PAYMENTS.c.needs_review)
    conditions = _conditions()
    for name in sorted(names & conditions.keys()):  # in one order, so that one list has one text
        query = query.where(conditions[name])
    return DirectStatement(
        query.order_by(PAYMENTS.c.created_at.desc(), PAYMENTS.c.id.desc()),
        planned_by_values=bool(names & _PLANNED_BY_VALUES),
    )


@cache
def _conditions() -> dict[str, ColumnElement[bool]]:
    """The condition of each filter, by the name of its parameter."""
    created_at, completed_at = PAYMENTS.c.created_at, PAYMENTS.c.completed_at
    position = tuple_(_value("created_at", "after_created_at"), _value("id", "after_id"))
    registered = select(Consultation.id).where(
        Consultation.registered_by == bindparam("registered_by", type_=Consultation.registered_by.type)
    )
    return {
        **{name: PAYMENTS.c[name] == _value(name) for name in ("user_id", "consultation_id", "payment_method")},
        "transaction_id": PAYMENTS.c.transaction_id == _value("transaction_id"),
        "patient_id": PAYMENTS.c.user_id == _value("user_id", "patient_id"),
        "normalized_email": PAYMENTS.c.user_id == ID_BY_EMAIL.scalar_subquery(),
        "registered_by": PAYMENTS.c.consultation_id.in_(registered),
        "created_from": created_at >= _value("created_at", "created_from"),
        "created_to": created_at < _value("created_at", "created_to"),
        "completed_from": completed_at >= _value("completed_at", "completed_from"),
        "completed_to": completed_at < _value("completed_at", "completed_to"),
        "after_id": tuple_(created_at, PAYMENTS.c.id) < position,
    }


def _value(column: str, name: str | None = None) -> Any:
    return bindparam(name or column, type_=PAYMENTS.c[column].type)


class _PaymentWithRelated:
    """The statement that reads a payment with its related rows, and the function that splits the rows again.

    It joins, because only one statement sees all of them at one moment. ``read`` splits each joined row by its columns.
    ``with_registered_by``: also reads who registered the consultation, which decides what a booking system may see.
    ``with_user``: also reads the caller's user.
    """

    def __init__(self, *, with_registered_by: bool, with_user: bool) -> None:
        relationships = inspect(Payment).relationships
        tables = [table for name in RELATED if isinstance(table := relationships[name].mapper.local_table, Table)]
        joined = PAYMENTS
        for table in tables:
            joined = joined.outerjoin(table, table.c.payment_id == PAYMENTS.c.id)  # type: ignore[assignment]  # a join
        shown: list[Any] = [PAYMENTS, *tables]
        if with_registered_by:
            joined = joined.join(Consultation, Consultation.id == PAYMENTS.c.consultation_id)  # type: ignore[assignment]  # a join
            shown.append(Consultation.registered_by)
        self._user_at = len(select(*shown).selected_columns)
        if with_user:
            user_id = bindparam("user_id", type_=User.id.type)
            joined = joined.outerjoin(User, User.id == user_id)  # type: ignore[assignment]  # a join
            shown.extend(USER_STATE)
        statement = select(*shown).select_from(joined).order_by(*(table.c.id for table in tables))
        statement = statement.where(PAYMENTS.c.id == _value("id", "payment_id"), PAYMENTS.c.deleted_at.is_(None))
        self.statement = DirectStatement(statement)
        # Its fields are the tables' columns, which the type checker does not know.
        self._payment: Any = namedtuple("Payment", [*PAYMENTS.c.keys(), *RELATED])  # type: ignore[misc]
        self._width = len(PAYMENTS.c)
        self._with_registered_by = with_registered_by
        self._records: list[Any] = [namedtuple(table.name, table.c.keys()) for table in tables]

    def read(self, rows: Sequence[Sequence[Any]]) -> Any:
        start, related = self._width, []
        for record in self._records:
            end = start + len(record._fields)
            different = dict.fromkeys(tuple(row[start:end]) for row in rows)
            related.append([record._make(values) for values in different if values[0] is not None])
            start = end
        return self._payment._make((*rows[0][: self._width], *related))

    def registered_by(self, rows: Sequence[Sequence[Any]]) -> int | None:
        """The id of the user who registered the consultation; None also if the statement does not ask."""
        return rows[0][self._user_at - 1] if self._with_registered_by else None

    def user(self, rows: Sequence[Sequence[Any]]) -> UserState | None:
        """The caller's user; only for a statement that asks for it."""
        return UserState.of(rows[0][self._user_at :])


_payment_with_related = cache(_PaymentWithRelated)  # made on first use: only then is every model imported, refunds too
