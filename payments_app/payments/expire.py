"""Payments that nobody finished: pendings whose time is up, and money that is said to be on its way."""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import AppError, InvalidTransition, VersionConflict
from payments_app.gateways.base import CheckoutSession, SessionStatus
from payments_app.gateways.registry import find_gateway
from payments_app.payments.cancel import CancellationPlan
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.gateway_updates import apply_session_update
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.repository import get_for_update, keyset

log = logging.getLogger(__name__)

# Payments read at a time: a million of them must not sit in memory.
BATCH_SIZE = 500


class ExpiryResult(StrEnum):
    """What became of a payment that was looked at."""

    EXPIRED = "expired"
    FAILED = "failed"
    # Paid, cancelled or changed meanwhile, by the gateway's account or by somebody else.
    FOLLOWED = "followed"
    # The gateway did not answer: it is left for the next time.
    LEFT = "left"


@read_transaction
def count_overdue(session: Session, deadlines: Deadlines) -> int:
    """How many pending payments are overdue."""
    return session.scalars(select(func.count()).select_from(Payment).where(deadlines.overdue())).one()


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


def expire(payment_id: int, context: AuditContext) -> ExpiryResult:
    """Expire a pending payment: first its session at the gateway, so that nobody pays it after.

    If the patient has opened another session since it was found to be overdue, it is left to them.
    """
    payment, abandoned = _see(payment_id)
    is_taken_up = abandoned.session_ends_at is not None and abandoned.session_ends_at >= context.at
    if payment.status != PaymentStatus.PENDING or is_taken_up:
        return ExpiryResult.FOLLOWED
    return _end(payment, abandoned, context)


def resume(payment_id: int, deadlines: Deadlines, context: AuditContext) -> ExpiryResult:
    """Ask the gateway what became of money on its way; where it did not come in time, the payment has failed."""
    payment, abandoned = _see(payment_id)
    if payment.status != PaymentStatus.PROCESSING:
        return ExpiryResult.FOLLOWED
    try:
        found = _look_up(abandoned)
        if found is None:
            return ExpiryResult.LEFT
        if found.status in (SessionStatus.SUCCEEDED, SessionStatus.CANCELLED):
            apply_session_update(payment_id, found, context)
            return ExpiryResult.FOLLOWED
    except AppError as error:
        return _left(payment_id, error)
    is_over = found.status == SessionStatus.OPEN and deadlines.have_passed(payment, abandoned.session_ends_at)
    return _end(payment, abandoned, context) if is_over else ExpiryResult.LEFT


def _look_up(abandoned: CancellationPlan) -> CheckoutSession | None:
    """The session by which the payment may still be paid; None where there is none, or no answer."""
    gateway = find_gateway(abandoned.gateway)
    for reference in abandoned.references:
        found = gateway.look_up_session(abandoned.charge, reference)
        if isinstance(found, CheckoutSession):
            return found
    return None


def _end(payment: Payment, abandoned: CancellationPlan, context: AuditContext) -> ExpiryResult:
    try:
        abandoned.end_sessions(context)
        return _write_end(payment.id, abandoned, context)
    except (InvalidTransition, VersionConflict):  # paid, cancelled, or taken up again in this moment
        return ExpiryResult.FOLLOWED
    except AppError as error:
        return _left(payment.id, error)


def _left(payment_id: int, error: AppError) -> ExpiryResult:
    """One that cannot be finished now is no reason to leave the others."""
    log.warning("payment %d is left for the next time: %s", payment_id, error.message)
    return ExpiryResult.LEFT


@write_transaction
def _write_end(session: Session, payment_id: int, abandoned: CancellationPlan, context: AuditContext) -> ExpiryResult:
    payment = get_for_update(session, payment_id)
    abandoned.close_sessions(session, context)
    if payment.status == PaymentStatus.PROCESSING:
        payment.fail(context)
        return ExpiryResult.FAILED
    payment.expire(context)
    return ExpiryResult.EXPIRED


@read_transaction
def _see(session: Session, payment_id: int) -> tuple[Payment, CancellationPlan]:
    payment = session.get_one(Payment, payment_id)
    return payment, CancellationPlan.of(session, payment)


@read_transaction
def _next_overdue(
    session: Session, deadlines: Deadlines, position: tuple[datetime, int] | None
) -> Sequence[tuple[datetime, int]]:
    age = tuple_(Payment.created_at, Payment.id)
    wanted = select(Payment.created_at, Payment.id).where(deadlines.overdue())
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
