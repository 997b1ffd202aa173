"""Stores a gateway's event together with its effect, in one transaction: both happen once, or neither."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Select, String, bindparam, func, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from payments_app.db.base import table_of
from payments_app.db.statement import DirectStatement
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
from payments_app.payments.repository import lock_as_read, with_related
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
    names = {"known_id": None, "gateway": gateway, "reference": transaction_id}
    return session.scalar(select(_ID_BY_NAMES), {**names, "payment_id": None, "consultation_id": None}) is not None


@write_transaction
def ingest(
    session: Session, gateway: str, event: GatewayEvent, context: AuditContext, money: GatewayPayment | None = None
) -> ReceivedEvent:
    """Store the event and apply it. An event that was applied has no effect; one that was about none of our payments
    is judged anew.

    Events arrive late, twice and in any order: each is compared with the current state, and no status goes backwards.
    ``money``: what the event's transaction is for, if the gateway was asked.
    """
    payment = None if event.payload is None else _find_payment(session, gateway, event.payload, money)
    # Locked before the event's row is inserted, whose foreign key locks the payment too: two transactions that insert
    # first and lock the payment afterwards would deadlock.
    if payment is not None:
        payment = lock_as_read(session, payment)
    payment_id = None if payment is None else payment.id
    row = {
        "gateway": gateway,
        "event_id": event.event_id,
        "type": event.type,
        "reference": event.reference,
        # Kept as one of no payment, so that it is judged anew if staff have it sent again.
        "payment_id": None if isinstance(event.payload, NotBelieved) else payment_id,
        "created_at": event.created_at,
        "received_at": context.at,
    }
    is_new = bool(_STORE_EVENT[session.get_bind().dialect.name].rows(session, row))
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


def _find_payment(
    session: Session, gateway: str, payload: EventPayload, asked: GatewayPayment | None
) -> Payment | None:
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
    names = {
        "known_id": known,
        "gateway": gateway,
        "reference": reference,
        "payment_id": named and named.payment_id,
        "consultation_id": named and named.consultation_id,
    }
    return session.scalars(_payment_by_names(), names).unique().one_or_none()


_GATEWAY, _REFERENCE = bindparam("gateway", type_=Payment.gateway.type), bindparam("reference", type_=String())

# The first that is known. What is null, is found by nothing.
_ID_BY_NAMES = func.coalesce(
    bindparam("known_id", type_=Payment.id.type),
    select(GatewaySession.payment_id)
    .where(GatewaySession.gateway == _GATEWAY, GatewaySession.reference == _REFERENCE)
    .scalar_subquery(),
    select(Payment.id)
    .where(Payment.gateway == _GATEWAY, Payment.transaction_id == _REFERENCE)
    .limit(literal_column("1"))
    .correlate(None)
    .scalar_subquery(),
    # By our ids, for an event that arrives before its session is stored. Both must match: another system with the
    # same account at the gateway may use one of them.
    select(Payment.id)
    .where(
        Payment.id == bindparam("payment_id", type_=Payment.id.type),
        Payment.consultation_id == bindparam("consultation_id", type_=Payment.consultation_id.type),
        Payment.gateway == _GATEWAY,
    )
    .correlate(None)
    .scalar_subquery(),
)


@cache  # made on first use: only then is every model imported
def _payment_by_names() -> Select[Payment]:
    return with_related().where(Payment.id == _ID_BY_NAMES)


def _storing(insert: Any) -> DirectStatement:
    """Stores an event; returns a row if it is new, or was of no payment until now."""
    new = insert.values({column.name: bindparam(column.name, type_=column.type) for column in _EVENTS.c})
    return DirectStatement(
        new.on_conflict_do_update(
            index_elements=[_EVENTS.c.gateway, _EVENTS.c.event_id],
            set_={"payment_id": new.excluded.payment_id},
            where=_EVENTS.c.payment_id.is_(None) & new.excluded.payment_id.is_not(None),
        ).returning(literal_column("1"))
    )


_EVENTS = table_of(WebhookEvent)
# SQLAlchemy has a construct of its own for each database.
_STORE_EVENT = {"postgresql": _storing(postgresql.insert(_EVENTS)), "sqlite": _storing(sqlite.insert(_EVENTS))}
