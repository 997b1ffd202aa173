"""Applies a gateway's report to a payment. This is the only place that decides about late money."""

import logging

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from payments_app.consultations.repository import is_closed
from payments_app.db.errors import constraint_meaning
from payments_app.db.transaction import write_transaction
from payments_app.errors import ActivePaymentExists, AppError
from payments_app.gateways.base import CheckoutSession, Declined, GatewayPayment, OutcomeUnknown, SessionStatus
from payments_app.gateways.registry import find_gateway
from payments_app.payments.models.event import AuditContext, PaymentEvent
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import MOVES, UNPAID, PaymentStatus
from payments_app.payments.repository import get_for_update
from payments_app.payments.sessions import OpenSession, end_row, find_newer_session, has_other_session, store_session

log = logging.getLogger(__name__)


def apply_session_update(payment_id: int, found: CheckoutSession, context: AuditContext) -> str:
    """Run ``apply_session`` in a transaction of its own; end the newer session after it. Returns the payment's status.

    Not to be called in a transaction.
    """
    status, newer = _apply_session_update(payment_id, found, context)
    end_newer_session(newer, context)
    return status


@write_transaction
def _apply_session_update(
    session: Session, payment_id: int, found: CheckoutSession, context: AuditContext
) -> tuple[str, OpenSession | None]:
    payment = get_for_update(session, payment_id)
    newer = apply_session(session, payment, found, context)
    return payment.status, newer


def apply_session(
    session: Session, payment: Payment, found: CheckoutSession, context: AuditContext
) -> OpenSession | None:
    """Apply a session's state to the payment, whose row is locked. A state that is known already changes nothing.

    Returns the payment's newer session, if money came or is on its way by an older one: for ``end_newer_session``.
    """
    was_open = _note_session(session, payment, found, context)
    match found.status:
        case SessionStatus.SUCCEEDED:
            is_completed = _receive(session, payment, found.money, None, context)
            return find_newer_session(session, payment) if is_completed and not was_open else None
        case SessionStatus.PROCESSING if payment.status == PaymentStatus.PENDING:
            payment.begin_processing(context)
            newer = find_newer_session(session, payment)
            return None if newer is None or newer.reference == found.reference else newer
        case SessionStatus.CANCELLED if payment.status in UNPAID:
            payment.mark_cancelled_by_gateway(context)
        # The money that was on its way did not come. If there are several sessions, it may be on its way by another
        # one: ``resume`` asks the gateway about all of them.
        case SessionStatus.EXPIRED if payment.status == PaymentStatus.PROCESSING and not has_other_session(
            session, payment.id, found.reference
        ):
            payment.fail(context)
    return None


def record_received_money(
    session: Session, payment: Payment, money: GatewayPayment, *, context: AuditContext, receipt_url: str | None = None
) -> OpenSession | None:
    """Record money that the gateway has received: it completes the payment, or is quarantined for staff to refund.

    Returns the session that is still open if the payment is completed: for ``end_newer_session``.
    """
    is_completed = _receive(session, payment, money, receipt_url, context)
    return find_newer_session(session, payment) if is_completed else None


def _receive(
    session: Session, payment: Payment, money: GatewayPayment, receipt_url: str | None, context: AuditContext
) -> bool:
    """Record the money. Whether it completes the payment."""
    if payment.received_minor:
        if payment.transaction_id != money.transaction_id:
            flag_once(session, payment, "payment.paid_again", money.transaction_id, context)
        return False
    if money.currency != payment.currency:  # our amount columns could not hold it: they count the payment's currency
        flag_once(session, payment, "payment.paid_in_other_currency", money.transaction_id, context)
        return False
    assert money.transaction_id is not None  # noqa: S101  # for the type checker: money that came has a transaction
    fits = money.mismatch_reason(payment.charge) is None and PaymentStatus.COMPLETED in MOVES[payment.status]
    if not fits or not _completes(session, payment, money.transaction_id, receipt_url, context):
        payment.quarantine(money.transaction_id, amount_minor=money.amount_minor, context=context)
        return False
    return True


def end_newer_session(newer: OpenSession | None, context: AuditContext) -> bool:
    """End at the gateway the session by which the patient could pay a second time. Not to be called in a transaction.

    False if the gateway does not say that it has ended: its row stays open, and ``payments expire`` ends it later.
    """
    if newer is None:
        return True
    payment_id, reason = newer.charge.payment_id, "the gateway has not ended it"
    try:
        match find_gateway(newer.gateway).cancel_session(newer.charge, newer.reference):
            case CheckoutSession(status=SessionStatus.CANCELLED | SessionStatus.EXPIRED):
                end_row(newer, context.at)
                return True
            case CheckoutSession(status=SessionStatus.SUCCEEDED) as paid:  # second money, or the money that we know
                apply_session_update(payment_id, paid, context)
                return True
            case Declined(reason=reason) | OutcomeUnknown(reason=reason):
                pass
    except AppError as error:  # what has been committed is not to fail for this
        reason = error.message
    log.warning("payment %d: its newer session is left open: %s", payment_id, reason)
    return False


def flag_once(session: Session, payment: Payment, event: str, reference: str | None, context: AuditContext) -> None:
    """Start a review of the payment, unless the same has been said before of this money, the gateway's ``reference``.

    A gateway tells of the same money in several events, and again if it is asked: it raises the version once.
    """
    said_before = select(PaymentEvent.id).where(
        PaymentEvent.payment_id == payment.id,
        PaymentEvent.event == event,
        PaymentEvent.reference.is_not_distinct_from(reference),
    )
    with session.no_autoflush:  # it would flush half of an effect, and raise the version twice
        if session.scalars(said_before.limit(1)).first() is not None:
            return
    payment.flag_for_review(event, context, reference=reference)


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


def _note_session(session: Session, payment: Payment, found: CheckoutSession, context: AuditContext) -> bool:
    """Store the session and its state; a webhook may arrive before the request that opened the session stores it.

    Whether it was open until now.

    This comes before any change of the payment: a statement here would flush half of that change.
    """
    status = SessionStatus.OPEN if found.status == SessionStatus.PROCESSING else found.status
    return store_session(session, payment, found.reference, status, at=context.at)
