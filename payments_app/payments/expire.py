"""Ends payments that were not paid in time, and refunds that nobody has approved in time."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from payments_app.db.base import constant
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import AppError, GatewayUnavailable, InvalidTransition, VersionConflict
from payments_app.gateways.base import CheckoutSession, OutcomeUnknown, SessionStatus
from payments_app.gateways.registry import find_gateway
from payments_app.payments.cancel import CancellationPlan
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.gateway_updates import apply_session_update, end_newer_session
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import REQUEST_TTL, Refund, RefundStatus
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.repository import get_for_update, keyset
from payments_app.payments.sessions import find_sessions_of_paid, older_references

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

    If the patient has opened another session since the payment was found to be overdue, it stays pending. If money came
    or is on its way by an older session, which the gateway is asked, the payment follows that.
    """
    payment, plan = load_with_sessions(payment_id)
    is_continued = plan.session_ends_at is not None and plan.session_ends_at >= context.at
    if payment.status != PaymentStatus.PENDING or is_continued:
        return ExpiryResult.FOLLOWED
    try:
        with_money = look_up_older(plan)
        if with_money is not None and apply_session_update(payment_id, with_money, context) != PaymentStatus.PENDING:
            return ExpiryResult.FOLLOWED
    except AppError as error:
        return leave_for_next_run(payment_id, error)
    return end_payment(payment, plan, context)


def look_up_older(plan: CancellationPlan) -> CheckoutSession | None:
    """The first of the payment's older sessions by which money came or is on its way; None if there is none.

    A patient who had chosen a wallet before the session ended may pay after its end.

    Raises:
        GatewayUnavailable: no answer from the gateway (503).
    """
    on_its_way = None
    for reference in plan.older:
        # Within the loop: with nothing to ask, the gateway need not be configured any more.
        found = find_gateway(plan.gateway).look_up_session(plan.charge, reference)
        if isinstance(found, OutcomeUnknown):
            raise GatewayUnavailable
        # One that the gateway does not know has ended here before, and keeps nobody waiting.
        if isinstance(found, CheckoutSession) and found.status == SessionStatus.SUCCEEDED:
            return found
        if isinstance(found, CheckoutSession) and found.status == SessionStatus.PROCESSING:
            on_its_way = on_its_way or found
    return on_its_way


def end_sessions_of_paid(context: AuditContext) -> Counter[bool]:
    """End the sessions that are open although an older one was paid; counts those that ended, and those that did not.

    They are ended when the money is recorded; these are the ones of which the gateway did not say so.
    """
    return Counter(end_newer_session(newer, context) for newer in find_sessions_of_paid())


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


def lapse_requests(context: AuditContext) -> Counter[bool]:
    """Mark refunds failed that nobody has approved in time; counts those that lapsed, and those that did not."""
    results: Counter[bool] = Counter()
    last_id = 0
    while batch := _next_lapsed(context.at, last_id):
        results.update(_try_to_lapse(refund_id, context) for refund_id in batch)
        last_id = batch[-1]
    return results


def _try_to_lapse(refund_id: int, context: AuditContext) -> bool:
    try:
        return _lapse(refund_id, context)
    except AppError as error:  # as in leave_for_next_run
        log.warning("refund %d is left for the next run: %s", refund_id, error.message)
        return False


@write_transaction
def _lapse(session: Session, refund_id: int, context: AuditContext) -> bool:
    payment_id = session.scalars(select(Refund.payment_id).where(Refund.id == refund_id)).one()
    payment = get_for_update(session, payment_id)
    refund = next(refund for refund in payment.refunds if refund.id == refund_id)
    if not refund.has_lapsed(context.at):  # approved or rejected at the same moment
        return False
    refund.reject(f"Nobody approved it within {REQUEST_TTL.days} days.", context)
    session.flush()
    return True


@read_transaction
def _next_lapsed(session: Session, now: datetime, last_id: int) -> Sequence[int]:
    # The predicate of ix_refunds_for_people.
    requested = Refund.status == constant(RefundStatus.REQUESTED)
    lapsed = (requested, Refund.created_at <= now - REQUEST_TTL, Refund.id > last_id)
    return session.scalars(select(Refund.id).where(*lapsed).order_by(Refund.id).limit(BATCH_SIZE)).all()


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
def load_with_sessions(session: Session, payment_id: int) -> tuple[Payment, CancellationPlan]:
    """The payment, and the plan of its end with its older sessions, which must not have money."""
    payment = session.get_one(Payment, payment_id)
    plan = CancellationPlan.of(session, payment)
    return payment, replace(plan, older=older_references(session, payment_id))


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
