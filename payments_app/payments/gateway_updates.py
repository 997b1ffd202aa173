"""What a gateway says of a payment, and what that makes of it: the one place where late money is judged."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from payments_app.db.base import insert_or_nothing
from payments_app.db.errors import broken_constraint
from payments_app.db.transaction import write_transaction
from payments_app.errors import ActivePaymentExists
from payments_app.gateways.base import CheckoutSession, Money, SessionStatus
from payments_app.payments.models.event import Deed
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import MOVES, UNPAID, PaymentStatus
from payments_app.payments.repository import locked


@write_transaction
def follow_session(session: Session, payment_id: int, found: CheckoutSession, deed: Deed) -> str:
    """``follow`` in a transaction of its own; the payment's status after it."""
    payment = locked(session, payment_id)
    follow(session, payment, found, deed)
    return payment.status


def follow(session: Session, payment: Payment, found: CheckoutSession, deed: Deed) -> None:
    """Bring a payment, whose row is locked, up to what its gateway says; what is known already changes nothing."""
    _note_session(session, payment, found, deed)
    match found.status:
        case SessionStatus.SUCCEEDED:
            receive(session, payment, found.money, deed=deed)
        case SessionStatus.PROCESSING if payment.status == PaymentStatus.PENDING:
            payment.begin_processing(deed)
        case SessionStatus.CANCELLED if payment.status in UNPAID:
            payment.was_cancelled_at_gateway(deed)


def receive(session: Session, payment: Payment, money: Money, *, deed: Deed, receipt_url: str | None = None) -> None:
    """Money that the gateway has: it completes the payment, or else is kept for staff to return."""
    if payment.received_minor:
        if payment.transaction_id != money.transaction_id:
            payment.ask_for_review("payment.paid_again", deed)
        return
    if money.currency != payment.currency:  # our amounts could not say how much it is
        payment.ask_for_review("payment.paid_in_other_currency", deed)
        return
    fits = money.why_not(payment.bill) is None and PaymentStatus.COMPLETED in MOVES[payment.status]
    if not fits or not _completes(session, payment, money.transaction_id, receipt_url, deed):
        payment.quarantine(money.transaction_id, amount_minor=money.amount_minor, deed=deed)


def _completes(session: Session, payment: Payment, transaction_id: str, receipt_url: str | None, deed: Deed) -> bool:
    """Complete the payment, unless it has ended and its consultation has another one by now: the index decides."""
    if payment.is_active:
        payment.complete(transaction_id, receipt_url=receipt_url, deed=deed)
        return True
    try:
        with session.begin_nested():
            payment.complete(transaction_id, receipt_url=receipt_url, deed=deed)
    except IntegrityError as error:
        if not isinstance(broken_constraint(error), ActivePaymentExists):
            raise
        return False
    return True


def _note_session(session: Session, payment: Payment, found: CheckoutSession, deed: Deed) -> None:
    """Keep what is known of the session; a webhook may tell of one before the request that opened it could.

    Before the payment is touched: a statement of ours would flush half of its change.
    """
    status = found.status if found.status in (SessionStatus.SUCCEEDED, SessionStatus.CANCELLED) else SessionStatus.OPEN
    keep_session(session, payment, found.reference, status, at=deed.at)
    known = (GatewaySession.gateway == payment.gateway, GatewaySession.reference == found.reference)
    # Core: a session has no version to guard, and what has ended stays so.
    session.execute(
        update(GatewaySession)
        .where(*known, GatewaySession.status == SessionStatus.OPEN.value, GatewaySession.payment_id == payment.id)
        .values(status=status.value, updated_at=deed.at)
    )


def keep_session(session: Session, payment: Payment, reference: str, status: SessionStatus, *, at: datetime) -> None:
    """Keep a session of the payment, unless it is known already."""
    new = insert_or_nothing(session, GatewaySession).values(
        payment_id=payment.id,
        gateway=payment.gateway,
        reference=reference,
        status=status.value,
        created_at=at,
        updated_at=at,
    )
    session.execute(new.on_conflict_do_nothing())


def open_references(session: Session, payment_id: int) -> list[str]:
    """The references of the sessions by which the payment could still be paid: one at the most."""
    still_open = (GatewaySession.payment_id == payment_id, GatewaySession.status == SessionStatus.OPEN.value)
    return list(session.scalars(select(GatewaySession.reference).where(*still_open)))
