"""Taking an event in, with its effect, in one transaction: so neither is there without the other, and each once."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app.db.base import insert_or_nothing
from payments_app.db.transaction import write_transaction
from payments_app.gateway_webhooks.models import WebhookEvent
from payments_app.gateways.base import CheckoutSession, GatewayName, GatewayRefund
from payments_app.gateways.stripe.webhooks import AttemptFailed, ChargeRefunded, GatewayEvent, News
from payments_app.payments.gateway_updates import follow
from payments_app.payments.models.event import Deed
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import UNPAID
from payments_app.payments.repository import locked
from payments_app.refunds.gateway_updates import follow_refund, follow_total

GATEWAY = GatewayName.STRIPE.value


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What an event was to us: about which payment, if about one of ours, and whether for the first time."""

    payment_id: int | None
    is_new: bool


@write_transaction
def take_in(session: Session, event: GatewayEvent, deed: Deed) -> TakenIn:
    """Keep the event and do what it means; one that was taken in before means nothing any more.

    Events come late, twice and in any order: what each says is compared with what is known, and nothing moves back.
    """
    payment_id = None if event.news is None else _find_payment(session, event.news)
    # Locked before the event's row refers to it: two that refer first and lock then would wait for one another.
    payment = None if payment_id is None else locked(session, payment_id)
    new = insert_or_nothing(session, WebhookEvent).values(
        gateway=GATEWAY,
        event_id=event.event_id,
        type=event.type,
        reference=event.reference,
        payment_id=payment_id,
        created_at=event.created_at,
        received_at=deed.at,
    )
    is_new = session.execute(new.on_conflict_do_nothing().returning(WebhookEvent.event_id)).first() is not None
    if is_new and payment is not None and event.news is not None:
        _apply(session, payment, event.news, deed)
    return TakenIn(payment_id, is_new)


def _apply(session: Session, payment: Payment, news: News, deed: Deed) -> None:
    match news:
        case CheckoutSession():
            follow(session, payment, news, deed)
        case AttemptFailed() if payment.status in UNPAID:
            payment.note("payment.attempt_failed", deed)
        case GatewayRefund():
            follow_refund(payment, news, deed)
        case ChargeRefunded():
            follow_total(payment, news, deed)


def _find_payment(session: Session, news: News) -> int | None:
    """The payment that is meant, by the session or transaction that is named, or by what we wrote on it."""
    match news:
        case AttemptFailed(session=told) | (CheckoutSession() as told):
            return _by_reference(session, told.reference) or _by_our_account(session, told)
        case GatewayRefund() | ChargeRefunded():
            return _by_reference(session, news.transaction_id)


def _by_reference(session: Session, reference: str | None) -> int | None:
    if reference is None:  # money that was never one of our sessions'
        return None
    of_session = select(GatewaySession.payment_id).where(
        GatewaySession.gateway == GATEWAY, GatewaySession.reference == reference
    )
    paid_by = select(Payment.id).where(Payment.gateway == GATEWAY, Payment.transaction_id == reference)
    return session.scalars(of_session).first() or session.scalars(paid_by).first()


def _by_our_account(session: Session, told: CheckoutSession) -> int | None:
    """For an event that overtakes the row of its session. By both ids: others in the same account may use one."""
    if told.money.payment_id is None:
        return None
    meant = (
        Payment.id == told.money.payment_id,
        Payment.consultation_id == told.money.consultation_id,
        Payment.gateway == GATEWAY,
    )
    return session.scalars(select(Payment.id).where(*meant)).first()
