"""What a gateway says of a payment, and what that makes of it: the one place where late money is judged."""

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

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
    """``apply_session`` in a transaction of its own; the payment's status after it."""
    payment = get_for_update(session, payment_id)
    apply_session(session, payment, found, context)
    return payment.status


def apply_session(session: Session, payment: Payment, found: CheckoutSession, context: AuditContext) -> None:
    """Bring a payment, whose row is locked, up to what its gateway says; what is known already changes nothing."""
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
    """Money that the gateway has: it completes the payment, or else is kept for staff to return."""
    if payment.received_minor:
        if payment.transaction_id != money.transaction_id:
            payment.flag_for_review("payment.paid_again", context)
        return
    if money.currency != payment.currency:  # our amounts could not say how much it is
        payment.flag_for_review("payment.paid_in_other_currency", context)
        return
    assert money.transaction_id is not None  # noqa: S101  # for the type checker: money that came has a transaction
    fits = money.mismatch_reason(payment.charge) is None and PaymentStatus.COMPLETED in MOVES[payment.status]
    if not fits or not _completes(session, payment, money.transaction_id, receipt_url, context):
        payment.quarantine(money.transaction_id, amount_minor=money.amount_minor, context=context)


def _completes(
    session: Session, payment: Payment, transaction_id: str, receipt_url: str | None, context: AuditContext
) -> bool:
    """Complete the payment, unless it has ended and its consultation has another one by now: the index decides."""
    if payment.is_active:
        payment.complete(transaction_id, receipt_url=receipt_url, context=context)
        return True
    try:
        with session.begin_nested():
            payment.complete(transaction_id, receipt_url=receipt_url, context=context)
    except IntegrityError as error:
        if not isinstance(constraint_meaning(error), ActivePaymentExists):
            raise
        return False
    return True


def _note_session(session: Session, payment: Payment, found: CheckoutSession, context: AuditContext) -> None:
    """Keep what is known of the session; a webhook may tell of one before the request that opened it could.

    Before the payment is touched: a statement of ours would flush half of its change.
    """
    status = SessionStatus.OPEN if found.status == SessionStatus.PROCESSING else found.status
    store_session(session, payment, found.reference, status, at=context.at)
    known = (GatewaySession.gateway == payment.gateway, GatewaySession.reference == found.reference)
    # Core: a session has no version to guard, and what has ended stays so.
    session.execute(
        update(GatewaySession)
        .where(*known, GatewaySession.status == SessionStatus.OPEN.value, GatewaySession.payment_id == payment.id)
        .values(status=status.value, updated_at=context.at)
    )
