"""Ends payments that were not paid in time."""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import AppError, InvalidTransition, VersionConflict
from payments_app.payments.cancel import CancellationPlan
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.repository import get_for_update, keyset

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


def find_overdue(deadlines: Deadlines) -> Iterator[int]:
    """Ids of all overdue pending payments, oldest first."""
    position: tuple[datetime, int] | None = None
    while batch := _next_overdue(deadlines, position):
        yield from (payment_id for _, payment_id in batch)
        position = batch[-1]


def expire(payment_id: int, context: AuditContext) -> ExpiryResult:
    """Expire a pending payment. Its session at the gateway ends first, so that it cannot be paid afterwards.

    If the patient has opened another session since the payment was found to be overdue, it stays pending.
    """
    payment, plan = _load(payment_id)
    is_continued = plan.session_ends_at is not None and plan.session_ends_at >= context.at
    if payment.status != PaymentStatus.PENDING or is_continued:
        return ExpiryResult.FOLLOWED
    return end_payment(payment, plan, context)


def end_payment(payment: Payment, plan: CancellationPlan, context: AuditContext) -> ExpiryResult:
    """End an unpaid payment: first its session at the gateway, outside any transaction, then its row."""
    try:
        plan.end_sessions(context)
        return _write_ended(payment.id, plan, context)
    except (InvalidTransition, VersionConflict):  # paid, cancelled, or reopened at the same moment
        return ExpiryResult.FOLLOWED
    except AppError as error:
        return leave_for_next_run(payment.id, error)


def leave_for_next_run(payment_id: int, error: AppError) -> ExpiryResult:
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
