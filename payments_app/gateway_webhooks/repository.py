"""Stores a gateway's event together with its effect, in one transaction: both happen once, or neither."""

from dataclasses import dataclass

from sqlalchemy import String, bindparam, func, literal_column, select
from sqlalchemy.orm import Session

from payments_app.db.base import dialect_insert
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.gateway_webhooks.models import WebhookEvent
from payments_app.gateways.base import CheckoutSession, GatewayPayment, GatewayRefund
from payments_app.gateways.events import (
    ChargeRefunded,
    EventPayload,
    GatewayDispute,
    GatewayEvent,
    MoneyOnItsWay,
    MoneyReceived,
    NotBelieved,
    PaymentAttemptFailed,
)
from payments_app.payments.disputes import apply_dispute_update, find_disputed_payment
from payments_app.payments.gateway_updates import apply_session, flag_once, record_received_money
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import UNPAID, PaymentStatus
from payments_app.payments.repository import get_for_update
from payments_app.payments.sessions import OpenSession
from payments_app.refunds.gateway_updates import apply_refund_update, reconcile_refunded_total


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """The result of ``ingest``. ``payment_id`` is None if the event is about none of our payments.

    ``newer_session``: one that is still open although money came by an older one: for ``end_newer_session``.
    """

    payment_id: int | None
    is_new: bool
    newer_session: OpenSession | None = None


@read_transaction
def is_known(session: Session, gateway: str, transaction_id: str) -> bool:
    """Whether the transaction, or the session of the same name, is one of our payments'."""
    return _by_names(session, gateway, transaction_id) is not None


@write_transaction
def ingest(
    session: Session, gateway: str, event: GatewayEvent, context: AuditContext, money: GatewayPayment | None = None
) -> ReceivedEvent:
    """Store the event and apply it. An event that was applied has no effect; one that was about none of our payments
    is judged anew.

    Events arrive late, twice and in any order: each is compared with the current state, and no status goes backwards.
    ``money``: what the event's transaction is for, if the gateway was asked.
    """
    payment_id = None if event.payload is None else _find_payment(session, gateway, event.payload, money)
    # Locked before the event's row is inserted, whose foreign key locks the payment too: two transactions that insert
    # first and lock the payment afterwards would deadlock.
    payment = None if payment_id is None else get_for_update(session, payment_id)
    new = dialect_insert(session, WebhookEvent).values(
        gateway=gateway,
        event_id=event.event_id,
        type=event.type,
        reference=event.reference,
        # Kept as one of no payment, so that it is judged anew if staff have it sent again.
        payment_id=None if isinstance(event.payload, NotBelieved) else payment_id,
        created_at=event.created_at,
        received_at=context.at,
    )
    finds_its_payment = new.on_conflict_do_update(
        index_elements=[WebhookEvent.gateway, WebhookEvent.event_id],
        set_={"payment_id": new.excluded.payment_id},
        where=WebhookEvent.payment_id.is_(None) & new.excluded.payment_id.is_not(None),
    )
    is_new = session.execute(finds_its_payment.returning(WebhookEvent.event_id)).first() is not None
    newer_session = None
    if is_new and payment is not None and event.payload is not None:
        newer_session = _apply(session, payment, event, event.payload, context)
    return ReceivedEvent(payment_id, is_new, newer_session)


def _apply(
    session: Session, payment: Payment, event: GatewayEvent, payload: EventPayload, context: AuditContext
) -> OpenSession | None:
    """Returns the newer session that is to be ended, if any."""
    match payload:
        case CheckoutSession():
            return apply_session(session, payment, payload, context)
        case PaymentAttemptFailed() if payment.status in UNPAID:
            payment.note("payment.attempt_failed", context)
        case MoneyReceived(money=money):
            return record_received_money(session, payment, money, context=context)
        case NotBelieved(money=money) if not payment.received_minor or money.transaction_id not in (
            None,
            payment.transaction_id,
        ):
            # Both events of one payment, of which one does not name it: once for both.
            flag_once(session, payment, "payment.paid_unconfirmed", None, context)
        case MoneyOnItsWay() if payment.status == PaymentStatus.PENDING:
            payment.begin_processing(context)
        case GatewayRefund():
            apply_refund_update(session, payment, payload, context)
        case ChargeRefunded():
            reconcile_refunded_total(session, payment, payload, context)
        case GatewayDispute():
            apply_dispute_update(session, payment, payload, told_at=event.created_at, context=context)
    return None


def _find_payment(session: Session, gateway: str, payload: EventPayload, asked: GatewayPayment | None) -> int | None:
    """The payment an event is about: by its session or transaction id, or by our ids in the metadata."""
    known: int | None = None
    reference: str | None
    named: GatewayPayment | ChargeRefunded | GatewayDispute | None
    match payload:
        case PaymentAttemptFailed(session=reported) | (CheckoutSession() as reported):
            reference, named = reported.reference, reported.money
        case MoneyReceived(money=money) | MoneyOnItsWay(money=money):
            reference, named = money.transaction_id, money
        case ChargeRefunded():  # its money may not be known yet
            reference, named = payload.transaction_id, None if payload.transaction_id is None else payload
        case NotBelieved():
            reference, named = payload.reference, payload.money
        case GatewayRefund():
            reference, named = payload.transaction_id, asked
        case GatewayDispute():
            known = find_disputed_payment(session, gateway, payload.reference)
            reference, named = payload.transaction_id, payload
    return known or _by_names(session, gateway, reference, named)


def _by_names(
    session: Session,
    gateway: str,
    reference: str | None,
    named: GatewayPayment | ChargeRefunded | GatewayDispute | None = None,
) -> int | None:
    asked = {
        "gateway": gateway,
        "reference": reference,
        "payment_id": named and named.payment_id,
        "consultation_id": named and named.consultation_id,
    }
    payment_id: int | None = session.scalar(_FIND_PAYMENT, asked)
    return payment_id


_GATEWAY, _REFERENCE = bindparam("gateway", type_=Payment.gateway.type), bindparam("reference", type_=String())

# The first that is known, in one statement. What is null, is found by nothing.
_FIND_PAYMENT = select(
    func.coalesce(
        select(GatewaySession.payment_id)
        .where(GatewaySession.gateway == _GATEWAY, GatewaySession.reference == _REFERENCE)
        .scalar_subquery(),
        select(Payment.id)
        .where(Payment.gateway == _GATEWAY, Payment.transaction_id == _REFERENCE)
        .limit(literal_column("1"))
        .scalar_subquery(),
        # By our ids, for an event that arrives before its session is stored. Both must match: another system with the
        # same account at the gateway may use one of them.
        select(Payment.id)
        .where(
            Payment.id == bindparam("payment_id", type_=Payment.id.type),
            Payment.consultation_id == bindparam("consultation_id", type_=Payment.consultation_id.type),
            Payment.gateway == _GATEWAY,
        )
        .scalar_subquery(),
    )
)
