"""Applies a gateway's report to a payment. This is the only place that decides about late money."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from payments_app.consultations.repository import is_closed
from payments_app.db.base import dialect_insert
from payments_app.db.errors import constraint_meaning
from payments_app.db.transaction import write_transaction
from payments_app.errors import ActivePaymentExists
from payments_app.gateways.base import CheckoutSession, GatewayPayment, SessionStatus
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import MOVES, UNPAID, PaymentStatus
from payments_app.payments.repository import get_for_update


@write_transaction
def apply_session_update(session: Session, payment_id: int, found: CheckoutSession, context: AuditContext) -> str:
    """Run ``apply_session`` in a transaction of its own, and return the payment's status after it."""
    payment = get_for_update(session, payment_id)
    apply_session(session, payment, found, context)
    return payment.status


def apply_session(session: Session, payment: Payment, found: CheckoutSession, context: AuditContext) -> None:
    """Apply a session's state to the payment, whose row is locked. A state that is known already changes nothing."""
    _note_session(session, payment, found, context)
    match found.status:
        case SessionStatus.SUCCEEDED:
            record_received_money(session, payment, found.money, context=context)
        case SessionStatus.PROCESSING if payment.status == PaymentStatus.PENDING:
            payment.begin_processing(context)
        case SessionStatus.CANCELLED if payment.status in UNPAID:
            payment.mark_cancelled_by_gateway(context)


def record_received_money(
    session: Session, payment: Payment, money: GatewayPayment, *, context: AuditContext, receipt_url: str | None = None
) -> None:
    """Record money that the gateway has received: it completes the payment, or is quarantined for staff to refund."""
    if payment.received_minor:
        if payment.transaction_id != money.transaction_id:
            payment.flag_for_review("payment.paid_again", context)
        return
    if money.currency != payment.currency:  # our amount columns could not hold it: they count the payment's currency
        payment.flag_for_review("payment.paid_in_other_currency", context)
        return
    fits = money.mismatch_reason(payment.charge) is None and PaymentStatus.COMPLETED in MOVES[payment.status]
    if not fits or not _completes(session, payment, money.transaction_id, receipt_url, context):
        payment.quarantine(money.transaction_id, amount_minor=money.amount_minor, context=context)


def _completes(
    session: Session, payment: Payment, transaction_id: str, receipt_url: str | None, context: AuditContext
) -> bool:
    """Complete the payment, unless it has ended and its consultation is closed or has another one by now; of another
    one, the index decides.
    """
    if payment.is_active:
        payment.complete(transaction_id, receipt_url=receipt_url, context=context)
        return True
    # Read without a lock, which would be taken in the wrong order: payment, then consultation. If the closing has not
    # committed yet, this money was earlier, and the closing leaves what is paid as it is.
    if is_closed(session, payment.consultation_id):
        return False
    try:
        with session.begin_nested():
            payment.complete(transaction_id, receipt_url=receipt_url, context=context)
    except IntegrityError as error:
        if not isinstance(constraint_meaning(error), ActivePaymentExists):
            raise
        return False
    return True


def _note_session(session: Session, payment: Payment, found: CheckoutSession, context: AuditContext) -> None:
    """Store the session and its state; a webhook may arrive before the request that opened the session stores it.

    This comes before any change of the payment: a statement here would flush half of that change.
    """
    status = found.status if found.status in (SessionStatus.SUCCEEDED, SessionStatus.CANCELLED) else SessionStatus.OPEN
    store_session(session, payment, found.reference, status, at=context.at)
    known = (GatewaySession.gateway == payment.gateway, GatewaySession.reference == found.reference)
    # A Core statement: a session has no version to guard, and an ended session stays ended.
    session.execute(
        update(GatewaySession)
        .where(*known, GatewaySession.status == SessionStatus.OPEN.value, GatewaySession.payment_id == payment.id)
        .values(status=status.value, updated_at=context.at)
    )


def store_session(session: Session, payment: Payment, reference: str, status: SessionStatus, *, at: datetime) -> None:
    """Insert a session of the payment, unless it is stored already."""
    new = dialect_insert(session, GatewaySession).values(
        payment_id=payment.id,
        gateway=payment.gateway,
        reference=reference,
        status=status.value,
        created_at=at,
        updated_at=at,
    )
    session.execute(new.on_conflict_do_nothing())


def open_session_references(session: Session, payment_id: int) -> list[str]:
    """References of the sessions by which the payment could still be paid: at most one."""
    still_open = (GatewaySession.payment_id == payment_id, GatewaySession.status == SessionStatus.OPEN.value)
    return list(session.scalars(select(GatewaySession.reference).where(*still_open)))
