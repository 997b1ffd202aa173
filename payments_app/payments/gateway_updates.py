"""Applies a gateway's report to a payment. This is the only place that decides about late money."""

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from payments_app.consultations.repository import is_closed
from payments_app.db.errors import constraint_meaning
from payments_app.db.transaction import write_transaction
from payments_app.errors import ActivePaymentExists
from payments_app.gateways.base import CheckoutSession, GatewayPayment, SessionStatus
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import MOVES, UNPAID, PaymentStatus
from payments_app.payments.repository import get_for_update
from payments_app.payments.sessions import store_session


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
        case SessionStatus.EXPIRED if payment.status == PaymentStatus.PROCESSING:
            payment.fail(context)  # the money that was on its way did not come


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
    assert money.transaction_id is not None  # noqa: S101  # for the type checker: money that came has a transaction
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
    status = SessionStatus.OPEN if found.status == SessionStatus.PROCESSING else found.status
    store_session(session, payment, found.reference, status, at=context.at)
    known = (GatewaySession.gateway == payment.gateway, GatewaySession.reference == found.reference)
    # A Core statement: a session has no version to guard, and an ended session stays ended.
    session.execute(
        update(GatewaySession)
        .where(*known, GatewaySession.status == SessionStatus.OPEN.value, GatewaySession.payment_id == payment.id)
        .values(status=status.value, updated_at=context.at)
    )
