"""Payments that nobody finished: pendings whose time is up, and money that is said to be on its way."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session

from config import Settings
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import AppError, InvalidTransition, VersionConflict
from payments_app.gateways.base import CheckoutSession, GatewayName, SessionStatus
from payments_app.gateways.registry import find_gateway
from payments_app.payments.cancel import Abandoned
from payments_app.payments.gateway_updates import follow_session
from payments_app.payments.models.event import Deed
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.repository import keyset, locked

log = logging.getLogger(__name__)

# Payments read at a time: a million of them must not sit in memory.
BATCH_SIZE = 500


class Fate(StrEnum):
    """What became of a payment that was looked at."""

    EXPIRED = "expired"
    FAILED = "failed"
    # Paid, cancelled or changed meanwhile, by the gateway's account or by somebody else.
    FOLLOWED = "followed"
    # The gateway did not answer: it is left for the next time.
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """From before which moment a payment is overdue, by the name of its gateway."""

    of: Mapping[str, datetime]

    @classmethod
    def at(cls, now: datetime, settings: Settings) -> "Deadlines":
        with_sessions = now - timedelta(seconds=settings.payment_pending_ttl_seconds)
        by_hand = now - timedelta(seconds=settings.payment_manual_ttl_seconds)
        return cls({name: by_hand if name is GatewayName.MANUAL else with_sessions for name in GatewayName})

    def have_passed(self, payment: Payment) -> bool:
        return payment.created_at < self.of[payment.gateway]


@read_transaction
def count_overdue(session: Session, deadlines: Deadlines) -> int:
    """How many pending payments are overdue."""
    return session.scalars(select(func.count()).select_from(Payment).where(_overdue(deadlines))).one()


@read_transaction
def count_processing(session: Session) -> int:
    """How many payments there are whose money is said to be on its way."""
    processing = Payment.status == PaymentStatus.PROCESSING.value
    return session.scalars(select(func.count()).select_from(Payment).where(processing)).one()


def find_overdue(deadlines: Deadlines) -> Iterator[int]:
    """The ids of all pending payments that are overdue, oldest first."""
    position: tuple[datetime, int] | None = None
    while batch := _next_overdue(deadlines, position):
        yield from (payment_id for _, payment_id in batch)
        position = batch[-1]


def find_processing() -> Iterator[int]:
    """The ids of all payments whose money is said to be on its way."""
    last_id = 0
    while batch := _next_processing(last_id):
        yield from batch
        last_id = batch[-1]


def expire(payment_id: int, deed: Deed) -> Fate:
    """Expire a pending payment: first its session at the gateway, so that nobody pays it after."""
    payment, abandoned = _see(payment_id)
    return _end(payment, abandoned, deed) if payment.status == PaymentStatus.PENDING else Fate.FOLLOWED


def resume(payment_id: int, deadlines: Deadlines, deed: Deed) -> Fate:
    """Ask the gateway what became of money on its way; where it did not come in time, the payment has failed."""
    payment, abandoned = _see(payment_id)
    if payment.status != PaymentStatus.PROCESSING:
        return Fate.FOLLOWED
    try:
        found = _look_up(abandoned)
        if found is None:
            return Fate.LEFT
        if found.status in (SessionStatus.SUCCEEDED, SessionStatus.CANCELLED):
            follow_session(payment_id, found, deed)
            return Fate.FOLLOWED
    except AppError as error:
        return _left(payment_id, error)
    is_over = found.status == SessionStatus.OPEN and deadlines.have_passed(payment)
    return _end(payment, abandoned, deed) if is_over else Fate.LEFT


def _look_up(abandoned: Abandoned) -> CheckoutSession | None:
    """The session by which the payment may still be paid; None where there is none, or no answer."""
    gateway = find_gateway(abandoned.gateway)
    for reference in abandoned.references:
        found = gateway.look_up_session(abandoned.bill, reference)
        if isinstance(found, CheckoutSession):
            return found
    return None


def _end(payment: Payment, abandoned: Abandoned, deed: Deed) -> Fate:
    try:
        abandoned.end_sessions(deed)
        return _write_end(payment.id, abandoned, deed)
    except (InvalidTransition, VersionConflict):  # paid, cancelled, or taken up again in this moment
        return Fate.FOLLOWED
    except AppError as error:
        return _left(payment.id, error)


def _left(payment_id: int, error: AppError) -> Fate:
    """One that cannot be finished now is no reason to leave the others."""
    log.warning("payment %d is left for the next time: %s", payment_id, error.message)
    return Fate.LEFT


@write_transaction
def _write_end(session: Session, payment_id: int, abandoned: Abandoned, deed: Deed) -> Fate:
    payment = locked(session, payment_id)
    abandoned.close_sessions(session, deed)
    if payment.status == PaymentStatus.PROCESSING:
        payment.fail(deed)
        return Fate.FAILED
    payment.expire(deed)
    return Fate.EXPIRED


@read_transaction
def _see(session: Session, payment_id: int) -> tuple[Payment, Abandoned]:
    payment = session.get_one(Payment, payment_id)
    return payment, Abandoned.of(session, payment)


@read_transaction
def _next_overdue(
    session: Session, deadlines: Deadlines, position: tuple[datetime, int] | None
) -> Sequence[tuple[datetime, int]]:
    age = tuple_(Payment.created_at, Payment.id)
    wanted = select(Payment.created_at, Payment.id).where(_overdue(deadlines))
    if position is not None:
        wanted = wanted.where(age > keyset(position))
    return [
        (row.created_at, row.id)
        for row in session.execute(wanted.order_by(Payment.created_at, Payment.id).limit(BATCH_SIZE))
    ]


@read_transaction
def _next_processing(session: Session, last_id: int) -> Sequence[int]:
    wanted = select(Payment.id).where(Payment.status == PaymentStatus.PROCESSING.value, Payment.id > last_id)
    return session.scalars(wanted.order_by(Payment.id).limit(BATCH_SIZE)).all()


def _overdue(deadlines: Deadlines) -> ColumnElement[bool]:
    of_gateways = (
        and_(Payment.gateway == gateway, Payment.created_at < deadline) for gateway, deadline in deadlines.of.items()
    )
    return and_(Payment.status == PaymentStatus.PENDING.value, or_(*of_gateways))
