"""Taking an event in, with its effect, in one transaction: so neither is there without the other, and each once."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app.db.base import dialect_insert
from payments_app.db.transaction import write_transaction
from payments_app.gateway_webhooks.models import WebhookEvent
from payments_app.gateways.base import CheckoutSession, GatewayPayment, GatewayRefund
from payments_app.gateways.events import (
    ChargeRefunded,
    EventPayload,
    GatewayEvent,
    MoneyReceived,
    PaymentAttemptFailed,
)
from payments_app.payments.gateway_updates import apply_session, record_received_money
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import UNPAID
from payments_app.payments.repository import get_for_update
from payments_app.refunds.gateway_updates import apply_refund_update, reconcile_refunded_total


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """What an event was to us: about which payment, if about one of ours, and whether for the first time."""

    payment_id: int | None
    is_new: bool


@write_transaction
def ingest(session: Session, gateway: str, event: GatewayEvent, context: AuditContext) -> ReceivedEvent:
    """Keep the event and do what it means; one that was taken in before means nothing any more.

    Events come late, twice and in any order: what each says is compared with what is known, and nothing moves back.
    """
    payment_id = None if event.payload is None else _find_payment(session, gateway, event.payload)
    # Locked before the event's row refers to it: two that refer first and lock then would wait for one another.
    payment = None if payment_id is None else get_for_update(session, payment_id)
    new = dialect_insert(session, WebhookEvent).values(
        gateway=gateway,
        event_id=event.event_id,
        type=event.type,
        reference=event.reference,
        payment_id=payment_id,
        created_at=event.created_at,
        received_at=context.at,
    )
    is_new = session.execute(new.on_conflict_do_nothing().returning(WebhookEvent.event_id)).first() is not None
    if is_new and payment is not None and event.payload is not None:
        _apply(session, payment, event.payload, context)
    return ReceivedEvent(payment_id, is_new)


def _apply(session: Session, payment: Payment, payload: EventPayload, context: AuditContext) -> None:
    match payload:
        case CheckoutSession():
            apply_session(session, payment, payload, context)
        case PaymentAttemptFailed() if payment.status in UNPAID:
            payment.note("payment.attempt_failed", context)
        case MoneyReceived(money=money):
            record_received_money(session, payment, money, context=context)
        case GatewayRefund():
            apply_refund_update(payment, payload, context)
        case ChargeRefunded():
            reconcile_refunded_total(payment, payload, context)


def _find_payment(session: Session, gateway: str, payload: EventPayload) -> int | None:
    """The payment that is meant, by the session or transaction that is named, or by what we wrote on it."""
    match payload:
        case PaymentAttemptFailed(session=reported) | (CheckoutSession() as reported):
            return _by_reference(session, gateway, reported.reference) or _by_metadata(session, gateway, reported.money)
        case MoneyReceived(money=money):
            return _by_reference(session, gateway, money.transaction_id) or _by_metadata(session, gateway, money)
        case GatewayRefund() | ChargeRefunded():
            return _by_reference(session, gateway, payload.transaction_id)
    return None


def _by_reference(session: Session, gateway: str, reference: str | None) -> int | None:
    if reference is None:  # money that was never one of our sessions'
        return None
    of_session = select(GatewaySession.payment_id).where(
        GatewaySession.gateway == gateway, GatewaySession.reference == reference
    )
    paid_by = select(Payment.id).where(Payment.gateway == gateway, Payment.transaction_id == reference)
    return session.scalars(of_session).first() or session.scalars(paid_by).first()


def _by_metadata(session: Session, gateway: str, money: GatewayPayment) -> int | None:
    """For an event that overtakes the row of its session. By both ids: others in the same account may use one."""
    if money.payment_id is None:
        return None
    meant = (
        Payment.id == money.payment_id,
        Payment.consultation_id == money.consultation_id,
        Payment.gateway == gateway,
    )
    return session.scalars(select(Payment.id).where(*meant)).first()
