"""Reads what the front desk shows: one statement for a page of payments, and one for the lengths of the queues."""

from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    bindparam,
    distinct,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union,
)
from sqlalchemy.orm import Session

from config import METHODS
from payments_app.accounts.models import User
from payments_app.consultations.models import Consultation
from payments_app.db.base import constant, in_check, table_of
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import read_transaction
from payments_app.gateways.references import BY_HAND, normalized_reference
from payments_app.pagination import Page
from payments_app.payments.models import dispute
from payments_app.payments.models.dispute import Dispute
from payments_app.payments.models.refund import Refund, RefundStatus
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.queries import CACHED_STATEMENTS, PAYMENTS, PaymentRow

USERS, CONSULTATIONS = table_of(User), table_of(Consultation)
REFUNDS, DISPUTES = table_of(Refund), table_of(Dispute)

MAX_ID: Final = 2**63 - 1


class Queue(StrEnum):
    """What waits for staff: payments by hand whose money may have come; refunds that another admin has to approve, or
    that staff have to send by hand; refunds whose gateway did not answer; open disputes and inquiries; reviews.
    """

    TO_BE_CONFIRMED = "to_be_confirmed"
    TO_BE_APPROVED = "to_be_approved"
    TO_BE_SENT = "to_be_sent"
    NEEDS_REVIEW = "needs_review"
    DISPUTED = "disputed"
    REFUND_UNKNOWN = "refund_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskFilter:
    """Which payments are shown; all conditions apply. The page starts after ``after``, a (created_at, id).

    ``search``: part of the patient's name or e-mail; the beginning of the consultation's reference or of the
    transaction, as it is stored or all in capitals or in small letters; a whole reference of money by hand in any
    spelling; or the number of a payment or consultation.
    """

    search: str | None = None
    payment_id: int | None = None
    status: PaymentStatus | None = None
    payment_method: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    queue: Queue | None = None
    after: tuple[datetime, int] | None = None
    per_page: int

    def values(self) -> dict[str, Any]:
        """What the statement is sent with: each condition but those that stand in it as words."""
        names = ("payment_id", "payment_method", "created_from", "created_to")
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.after is not None:
            values["after_created_at"], values["after_id"] = self.after
        if self.search is not None:
            literally = self.search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            values |= {
                "part": f"%{literally}%",
                # The three ways in which references are usually stored. An index cannot ignore capitals by itself.
                "beginning": f"{literally}%",
                "beginning_upper": f"{literally.upper()}%",
                "beginning_lower": f"{literally.lower()}%",
                "reference": normalized_reference(BY_HAND, self.search),
            }
            if self.search.isascii() and self.search.isdigit() and int(self.search) <= MAX_ID:
                values["number"] = int(self.search)
        return values


@dataclass(frozen=True, slots=True)
class Patient:
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class ConsultationRow:
    id: int
    reference: str | None
    description: str | None
    starts_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeskPayment:
    """A payment with what staff need to recognise it. ``refundable_minor``: what can be refunded now.

    ``by_hand``: it is paid by hand, so that staff confirm it and send its refunds.
    ``dispute``: the one that has to be answered first, else the latest one. ``open_refund``: the oldest one that is not
    settled.
    """

    payment: Any
    patient: Patient
    consultation: ConsultationRow
    refundable_minor: int
    by_hand: bool
    dispute: Any
    open_refund: Any


# Their fields are the columns below.
_DisputeRow = namedtuple("_DisputeRow", ("id", "status", "due_at"))
_RefundRow = namedtuple("_RefundRow", ("id", "status", "amount_minor", "by_hand"))


@read_transaction
def list_page(session: Session, shown: DeskFilter) -> Page[DeskPayment]:
    """Payments, newest first, in one statement; a page far down costs what the first one costs."""
    values = shown.values()
    statement = _page(frozenset(values), shown.status, shown.queue, shown.per_page)
    return Page.cut([_read(row) for row in statement.rows(session, values)], shown.per_page)


@read_transaction
def count_queues(session: Session) -> Mapping[Queue, int]:
    """The number of payments in each queue, in one statement."""
    (row,) = _counts().rows(session, {})
    return dict(zip(Queue, row, strict=True))


@lru_cache(CACHED_STATEMENTS)
def _page(names: frozenset[str], status: PaymentStatus | None, queue: Queue | None, per_page: int) -> DirectStatement:
    conditions: list[ColumnElement[bool]] = [PAYMENTS.c.deleted_at.is_(None)]
    if status is not None:
        conditions.append(PAYMENTS.c.status == constant(status))
    if queue is not None:
        conditions.append(_in_queue(queue))
    known = _conditions()
    conditions += [known[name] for name in sorted(names & known.keys())]

    def newest(*more: ColumnElement[bool]) -> Select[Any]:
        rows = select(PAYMENTS.c.id).where(*conditions, *more)
        rows = rows.order_by(PAYMENTS.c.created_at.desc(), PAYMENTS.c.id.desc())
        return rows.limit(literal_column(str(per_page + 1)))

    if "part" not in names:
        found = newest().subquery("found")
    else:
        # Each place that is searched has an index of its own, which an OR of all of them would not use.
        arms = [newest(place).subquery() for place in _places(with_number="number" in names)]
        found = union(*(select(arm.c.id) for arm in arms)).subquery("found")
    # Joined after the limit: only what is shown is looked up.
    shown = (
        PAYMENTS.join(found, found.c.id == PAYMENTS.c.id)
        .join(USERS, USERS.c.id == PAYMENTS.c.user_id)
        .join(CONSULTATIONS, CONSULTATIONS.c.id == PAYMENTS.c.consultation_id)
        .outerjoin(DISPUTES, DISPUTES.c.id == _first_dispute())
        .outerjoin(REFUNDS, REFUNDS.c.id == _first_open_refund())
    )
    page = (
        select(
            *PAYMENTS.c,
            *(USERS.c[name] for name in ("name", "email")),
            *(CONSULTATIONS.c[name] for name in ("id", "reference", "description", "starts_at")),
            *(DISPUTES.c[name] for name in ("id", "status", "due_at")),
            *(REFUNDS.c[name] for name in ("id", "status", "amount_minor", "by_hand")),
        )
        .select_from(shown)
        .order_by(PAYMENTS.c.created_at.desc(), PAYMENTS.c.id.desc())
        .limit(literal_column(str(per_page + 1)))
    )
    # A rare name and a common one, a day and ten years: each has a good plan of its own.
    return DirectStatement(page, planned_by_values=bool(names))


def _read(row: Any) -> DeskPayment:
    at = len(PAYMENTS.c)
    payment: Any = PaymentRow._make(row[:at])
    due, refund = _DisputeRow._make(row[at + 6 : at + 9]), _RefundRow._make(row[at + 9 : at + 13])
    left_minor = payment.received_minor - payment.refund_reserved_minor - payment.refunded_minor
    return DeskPayment(
        payment=payment,
        patient=Patient(*row[at : at + 2]),
        consultation=ConsultationRow(*row[at + 2 : at + 6]),
        refundable_minor=0 if payment.is_disputed else left_minor,
        by_hand=payment.gateway == BY_HAND,
        dispute=None if due.id is None else due,
        open_refund=None if refund.id is None else refund,
    )


@cache
def _conditions() -> dict[str, ColumnElement[bool]]:
    """The condition of each filter, by the name of its parameter."""
    created_at = PAYMENTS.c.created_at
    position = tuple_(_value("created_at", "after_created_at"), _value("id", "after_id"))
    return {
        "payment_id": PAYMENTS.c.id == _value("id", "payment_id"),
        "payment_method": PAYMENTS.c.payment_method == _value("payment_method"),
        "created_from": created_at >= _value("created_at", "created_from"),
        "created_to": created_at < _value("created_at", "created_to"),
        "after_id": tuple_(created_at, PAYMENTS.c.id) < position,
    }


def _places(*, with_number: bool) -> list[ColumnElement[bool]]:
    """What is searched, each by its own index; names and addresses of patients without one. Capitals are what the
    database takes them to be: SQLite knows those of ASCII alone.
    """
    # Not ``lower(name) LIKE``: of an expression PostgreSQL has no statistics, takes every name to be common, and looks
    # through all payments for a rare one.
    patients = select(USERS.c.id).where(
        or_(*(column.ilike(_pattern("part"), escape="\\") for column in (USERS.c.name, USERS.c.email)))
    )
    consultations = select(CONSULTATIONS.c.id).where(_begins(CONSULTATIONS.c.reference))
    methods: list[ColumnElement[str]] = [constant(method) for method in METHODS]
    places = [
        PAYMENTS.c.user_id.in_(patients),
        PAYMENTS.c.consultation_id.in_(consultations),
        _begins(PAYMENTS.c.transaction_id),
        # All three columns of the index.
        and_(
            PAYMENTS.c.gateway == constant(BY_HAND),
            PAYMENTS.c.payment_method.in_(methods),
            PAYMENTS.c.normalized_reference == _value("normalized_reference", "reference"),
        ),
    ]
    if with_number:
        places += [PAYMENTS.c[name] == _value("id", "number") for name in ("id", "consultation_id")]
    return places


def _begins(column: ColumnElement[Any]) -> ColumnElement[bool]:
    spellings = ("beginning", "beginning_upper", "beginning_lower")
    return and_(column.is_not(None), or_(*(column.like(_pattern(name), escape="\\") for name in spellings)))


def _pattern(name: str) -> ColumnElement[str]:
    return bindparam(name, type_=String)


def _value(column: str, name: str | None = None) -> Any:
    return bindparam(name or column, type_=PAYMENTS.c[column].type)


def _in_queue(queue: Queue) -> ColumnElement[bool]:
    """Whether a payment is in that queue. The conditions are the predicates of indexes."""
    match queue:
        case Queue.TO_BE_CONFIRMED:
            return and_(
                PAYMENTS.c.status == constant(PaymentStatus.PENDING),
                PAYMENTS.c.gateway == constant(BY_HAND),
            )
        case Queue.NEEDS_REVIEW:
            return PAYMENTS.c.needs_review
        case Queue.DISPUTED:
            is_open: ColumnElement[bool] = literal_column(f"({in_check('disputes.status', dispute.OPEN)})")
            return PAYMENTS.c.id.in_(select(DISPUTES.c.payment_id).where(is_open))
        case Queue.TO_BE_SENT:
            return _has_refund(RefundStatus.PENDING, REFUNDS.c.by_hand)
        case Queue.TO_BE_APPROVED:
            return _has_refund(RefundStatus.REQUESTED)
        case Queue.REFUND_UNKNOWN:
            return _has_refund(RefundStatus.UNKNOWN)


def _has_refund(status: str, *more: ColumnElement[bool]) -> ColumnElement[bool]:
    refunds = select(REFUNDS.c.payment_id).where(REFUNDS.c.status == constant(status), *more)
    return PAYMENTS.c.id.in_(refunds)


def _first_dispute() -> Any:
    is_open: ColumnElement[bool] = literal_column(f"({in_check('d.status', dispute.OPEN)})")
    theirs = DISPUTES.alias("d")
    return (
        select(theirs.c.id)
        .where(theirs.c.payment_id == PAYMENTS.c.id)
        .order_by(is_open.desc(), theirs.c.due_at.is_(None), theirs.c.due_at, theirs.c.id.desc())
        .limit(literal_column("1"))
        .correlate(PAYMENTS)
        .scalar_subquery()
    )


def _first_open_refund() -> Any:
    theirs = REFUNDS.alias("r")
    return (
        select(func.min(theirs.c.id))
        .where(theirs.c.payment_id == PAYMENTS.c.id, theirs.c.settled_at.is_(None))
        .correlate(PAYMENTS)
        .scalar_subquery()
    )


@cache
def _counts() -> DirectStatement:
    return DirectStatement(
        select(
            *(
                select(func.count(distinct(PAYMENTS.c.id)))
                .where(PAYMENTS.c.deleted_at.is_(None), _in_queue(queue))
                .scalar_subquery()
                .label(queue)
                for queue in Queue
            )
        )
    )
