"""Ends payments that were not paid in time, and settles payments that stay in ``processing``."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from payments_app.payments.sessions import find_newest_session

log = logging.getLogger(__name__)

# Payments per query: a million of them must not be held in memory.
BATCH_SIZE = 500


class ExpiryResult(StrEnum):
    """The result of ``expire`` or ``resume`` for one payment."""

    EXPIRED = "expired"
    FAILED = "failed"
    # Paid, cancelled or changed meanwhile, by the gateway or by another process.
    FOLLOWED = "followed"
    # The gateway did not answer: the next run tries again.
    LEFT = "left"


@read_transaction
def count_overdue(session: Session, deadlines: Deadlines) -> int:
    """The number of pending payments that are overdue."""
    return session.scalars(select(func.count()).select_from(Payment).where(deadlines.overdue())).one()


@read_transaction
def count_processing(session: Session) -> int:
    """The number of payments in ``processing``."""
    processing = Payment.status == PaymentStatus.PROCESSING.value
    return session.scalars(select(func.count()).select_from(Payment).where(processing)).one()


def find_overdue(deadlines: Deadlines) -> Iterator[int]:
    """Ids of all overdue pending payments, oldest first."""
    position: tuple[datetime, int] | None = None
    while batch := _next_overdue(deadlines, position):
        yield from (payment_id for _, payment_id in batch)
        position = batch[-1]


def find_processing() -> Iterator[int]:
    """Ids of all payments in ``processing``, in ascending order."""
    last_id = 0
    while batch := _next_processing(last_id):
        yield from batch
        last_id = batch[-1]


def expire(payment_id: int, context: AuditContext) -> ExpiryResult:
    """Expire a pending payment. Its session at the gateway ends first, so that it cannot be paid afterwards.

    If the patient has opened another session since the payment was found to be overdue, it stays pending.
    """
    payment, plan = _load(payment_id)
    is_continued = plan.session_ends_at is not None and plan.session_ends_at >= context.at
    if payment.status != PaymentStatus.PENDING or is_continued:
        return ExpiryResult.FOLLOWED
    return _end_payment(payment, plan, context)


def resume(payment_id: int, deadlines: Deadlines, context: AuditContext) -> ExpiryResult:
    """Look up a payment in ``processing`` at its gateway, and apply the outcome.

    If none of its sessions is open here, the newest is looked up: that its money is on its way may be reported late.
    If the gateway's session is open again and the deadline has passed, the session is ended and the payment fails.
    """
    payment, plan = _load_with_newest_session(payment_id)
    if payment.status != PaymentStatus.PROCESSING:
        return ExpiryResult.FOLLOWED
    try:
        found = _look_up(plan)
        if found is None:
            return ExpiryResult.LEFT
        if found.status in (SessionStatus.SUCCEEDED, SessionStatus.CANCELLED, SessionStatus.EXPIRED):
            apply_session_update(payment_id, found, context)
            return ExpiryResult.FOLLOWED
    except AppError as error:
        return _leave_for_next_run(payment_id, error)
    is_over = found.status == SessionStatus.OPEN and deadlines.have_passed(payment, plan.session_ends_at)
    return _end_payment(payment, plan, context) if is_over else ExpiryResult.LEFT


def _look_up(plan: CancellationPlan) -> CheckoutSession | None:
    """The session by which the payment may be paid; None if there is none, or if the gateway does not answer."""
    gateway = find_gateway(plan.gateway)
    for reference in plan.references:
        found = gateway.look_up_session(plan.charge, reference)
        if isinstance(found, CheckoutSession):
            return found
    return None


def _end_payment(payment: Payment, plan: CancellationPlan, context: AuditContext) -> ExpiryResult:
    try:
        plan.end_sessions(context)
        return _write_ended(payment.id, plan, context)
    except (InvalidTransition, VersionConflict):  # paid, cancelled, or reopened at the same moment
        return ExpiryResult.FOLLOWED
    except AppError as error:
        return _leave_for_next_run(payment.id, error)


def _leave_for_next_run(payment_id: int, error: AppError) -> ExpiryResult:
    """Log and go on: one payment that cannot be finished now must not stop the others."""
    log.warning("payment %d is left for the next run: %s", payment_id, error.message)
    return ExpiryResult.LEFT


@write_transaction
def _write_ended(session: Session, payment_id: int, plan: CancellationPlan, context: AuditContext) -> ExpiryResult:
    payment = get_for_update(session, payment_id)
    plan.close_sessions(session, context)
    if payment.status == PaymentStatus.PROCESSING:
        payment.fail(context)
        return ExpiryResult.FAILED
    payment.expire(context)
    return ExpiryResult.EXPIRED


@read_transaction
def _load(session: Session, payment_id: int) -> tuple[Payment, CancellationPlan]:
    payment = session.get_one(Payment, payment_id)
    return payment, CancellationPlan.of(session, payment)


@read_transaction
def _load_with_newest_session(session: Session, payment_id: int) -> tuple[Payment, CancellationPlan]:
    payment = session.get_one(Payment, payment_id)
    plan = CancellationPlan.of(session, payment)
    newest = None if plan.references else find_newest_session(session, payment_id)
    return payment, plan if newest is None else replace(plan, references=[str(newest.reference)])


@read_transaction
def _next_overdue(
    session: Session, deadlines: Deadlines, position: tuple[datetime, int] | None
) -> Sequence[tuple[datetime, int]]:
    age = tuple_(Payment.created_at, Payment.id)
    query = select(Payment.created_at, Payment.id).where(deadlines.overdue())
    if position is not None:
        query = query.where(age > keyset(position))
    return [
        (row.created_at, row.id)
        for row in session.execute(query.order_by(Payment.created_at, Payment.id).limit(BATCH_SIZE))
    ]


@read_transaction
def _next_processing(session: Session, last_id: int) -> Sequence[int]:
    query = select(Payment.id).where(Payment.status == PaymentStatus.PROCESSING.value, Payment.id > last_id)
    return session.scalars(query.order_by(Payment.id).limit(BATCH_SIZE)).all()
