"""Settles payments that stay in ``processing``: the gateway is asked what became of their money."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction
from payments_app.errors import AppError
from payments_app.gateways.base import CheckoutSession, SessionStatus
from payments_app.gateways.registry import find_gateway
from payments_app.payments.cancel import CancellationPlan
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.expire import (
    BATCH_SIZE,
    ExpiryResult,
    end_payment,
    leave_for_next_run,
    load_with_sessions,
    look_up_older,
)
from payments_app.payments.gateway_updates import apply_session_update
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus

_OVER = (SessionStatus.CANCELLED, SessionStatus.EXPIRED)


@read_transaction
def count_processing(session: Session) -> int:
    """The number of payments in ``processing``."""
    processing = Payment.status == PaymentStatus.PROCESSING.value
    return session.scalars(select(func.count()).select_from(Payment).where(processing)).one()


def find_processing() -> Iterator[int]:
    """Ids of all payments in ``processing``, in ascending order."""
    last_id = 0
    while batch := _next_processing(last_id):
        yield from batch
        last_id = batch[-1]


def resume(payment_id: int, deadlines: Deadlines, context: AuditContext) -> ExpiryResult:
    """Look up a payment in ``processing`` at its gateway, and apply the outcome.

    If none of its sessions is open here, the newest is looked up: that its money is on its way may be reported late.
    If money is not on its way by any of its sessions, and that one is over or is open after the deadline, the session
    is ended and the payment fails.
    """
    payment, plan = _load(payment_id)
    if payment.status != PaymentStatus.PROCESSING:
        return ExpiryResult.FOLLOWED
    try:
        with_money = look_up_older(plan)
        if with_money is not None and with_money.status == SessionStatus.SUCCEEDED:
            apply_session_update(payment_id, with_money, context)
            return ExpiryResult.FOLLOWED
        found = _look_up(plan)
        if found is None:
            return ExpiryResult.LEFT
        if found.status == SessionStatus.SUCCEEDED or (found.status in _OVER and not plan.older):
            apply_session_update(payment_id, found, context)
            return ExpiryResult.FOLLOWED
    except AppError as error:
        return leave_for_next_run(payment_id, error)
    is_over = found.status in _OVER or (
        found.status == SessionStatus.OPEN and deadlines.have_passed(payment, plan.session_ends_at)
    )
    return end_payment(payment, plan, context) if is_over and with_money is None else ExpiryResult.LEFT


def _load(payment_id: int) -> tuple[Payment, CancellationPlan]:
    """With the newest of the ended sessions in place of the open one, if there is none."""
    payment, plan = load_with_sessions(payment_id)
    if plan.references or not plan.older:
        return payment, plan
    return payment, replace(plan, references=plan.older[-1:], older=plan.older[:-1])


def _look_up(plan: CancellationPlan) -> CheckoutSession | None:
    """The session by which the payment may still be paid; None if there is none, or if the gateway does not answer.

    Raises:
        GatewayUnavailable: the gateway was silent before, and is not called for now.
    """
    gateway = find_gateway(plan.gateway)
    with plan.place():
        for reference in plan.references:
            found = gateway.look_up_session(plan.charge, reference)
            if isinstance(found, CheckoutSession):
                return found
    return None


@read_transaction
def _next_processing(session: Session, last_id: int) -> Sequence[int]:
    query = select(Payment.id).where(Payment.status == PaymentStatus.PROCESSING.value, Payment.id > last_id)
    return session.scalars(query.order_by(Payment.id).limit(BATCH_SIZE)).all()
