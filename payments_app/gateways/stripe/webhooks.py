"""Verifies and reads Stripe's webhook events.

Signatures: https://docs.stripe.com/webhooks#verify-manually. Only the signed body counts. Every signed body is an
event, even in an unknown shape: Stripe adds new shapes, such as thin events
(https://docs.stripe.com/webhooks#event-destinations), and would send a refused event again and again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from payments_app.gateways.base import CheckoutSession, SessionStatus
from payments_app.gateways.events import (
    ChargeRefunded,
    EventPayload,
    GatewayEvent,
    InvalidSignature,
    MoneyOnItsWay,
    MoneyReceived,
    PaymentAttemptFailed,
)
from payments_app.gateways.signatures import valid_signatures
from payments_app.gateways.stripe.objects import (
    checkout_session_of,
    dispute_of,
    is_of_checkout_session,
    metadata_id,
    reference_of,
    refund_of,
    session_of,
)
from payments_app.gateways.untrusted import (
    UNEXPECTED,
    amount_of,
    event_id_of,
    members_of,
    moment_or_none,
    of_mode,
    parsed,
    text_of,
    text_or,
)

# The type of a thin event about an object of API v1 is this prefix and the type of the full event.
_THIN = "v1."

# Events whose names begin like this are about payments, their money or its risk. Payouts and the like are not: they are
# between the clinic and Stripe.
_ABOUT_MONEY = (
    "charge.",
    "checkout.session.",
    "customer_cash_balance_transaction.",
    "payment_intent.",
    "radar.",
    "refund.",
    "review.",
)
# Of those, the ones that say nothing that an event that we follow does not say as well: a charge is one attempt to pay
# a PaymentIntent, and the PaymentIntent has events of its own.
_TOLD_BY_OTHERS = frozenset(
    {
        "charge.expired",
        "charge.failed",
        "charge.pending",
        "charge.succeeded",
        "charge.updated",
        "payment_intent.created",
        "payment_intent.requires_action",
    }
)


def read_event(
    body: bytes, signature: str | None, secrets: Sequence[str], *, livemode: bool | None, received_at: datetime
) -> GatewayEvent:
    """Verify and read an event. Members that are missing or cannot be stored get default values.

    Raises:
        InvalidSignature: not signed with one of ``secrets`` within the last 300 seconds (400).
        OtherMode: the mode of the event or its object is not ``livemode``, if that is known (400).
    """
    if "v1" not in valid_signatures(signature, body, secrets, at=received_at):
        raise InvalidSignature
    event = of_mode(parsed(body), livemode)
    stripe_object = of_mode(members_of(members_of(event.get("data")).get("object")), livemode)
    event_type = event.get("type")
    payload, is_readable = _read(event_type, stripe_object)
    return GatewayEvent(
        event_id=event_id_of(event.get("id"), body),
        type=text_or(event_type, "unreadable"),
        reference=text_or((stripe_object or members_of(event.get("related_object"))).get("id"), "none"),
        created_at=moment_or_none(event.get("created")) or received_at,
        payload=payload,
        is_readable=is_readable,
        is_followed=not (payload is None and is_readable and _may_be_about_money(event_type)),
    )


def _read(event_type: Any, stripe_object: Mapping[str, Any]) -> tuple[EventPayload | None, bool]:
    """The payload of an event, and whether the event is readable."""
    if not isinstance(event_type, str):
        return None, False
    if event_type not in _READERS:
        # A thin event of a type that concerns us has the object's id only, and not its state: it is unreadable.
        return None, event_type.removeprefix(_THIN) not in _READERS
    try:
        return _READERS[event_type](stripe_object), True
    except UNEXPECTED:
        return None, False


def _may_be_about_money(event_type: Any) -> bool:
    name = str(event_type).removeprefix(_THIN)
    return name.startswith(_ABOUT_MONEY) and name not in _TOLD_BY_OTHERS


def _session_over(session: Mapping[str, Any]) -> CheckoutSession:
    """The money that was on its way did not come; the session can take no other."""
    return replace(checkout_session_of(session), status=SessionStatus.EXPIRED)


def _unless_of_session(
    read: Callable[[Mapping[str, Any]], EventPayload | None],
) -> Callable[[Mapping[str, Any]], EventPayload | None]:
    """How to read an event of a PaymentIntent that a Checkout Session made; any other is a session of its own."""
    return lambda intent: read(intent) if is_of_checkout_session(intent) else session_of(intent)


def _money_received(intent: Mapping[str, Any]) -> MoneyReceived:
    return MoneyReceived(session_of(intent).money)


def _money_on_its_way(intent: Mapping[str, Any]) -> MoneyOnItsWay:
    return MoneyOnItsWay(session_of(intent).money)


def _nothing(_intent: Mapping[str, Any]) -> None:
    """The session's own event says it."""


def _attempt_failed(intent: Mapping[str, Any]) -> PaymentAttemptFailed:
    return PaymentAttemptFailed(session_of(intent))


def _charge_refunded(charge: Mapping[str, Any]) -> ChargeRefunded:
    refunds = tuple(map(refund_of, (charge.get("refunds") or {}).get("data") or ()))
    return ChargeRefunded(
        transaction_id=reference_of(charge["payment_intent"]),
        returned_minor=amount_of(charge["amount_refunded"], least=0),
        currency=text_of(charge["currency"]).upper(),
        refunds=refunds,
        # A charge has the metadata of its PaymentIntent.
        payment_id=metadata_id(charge, "payment_id"),
        consultation_id=metadata_id(charge, "consultation_id"),
    )


_READERS: Mapping[str, Callable[[Mapping[str, Any]], EventPayload | None]] = {
    "checkout.session.completed": checkout_session_of,
    "checkout.session.async_payment_succeeded": checkout_session_of,
    "checkout.session.async_payment_failed": _session_over,
    "checkout.session.expired": checkout_session_of,
    "payment_intent.processing": _unless_of_session(_money_on_its_way),
    "payment_intent.succeeded": _unless_of_session(_money_received),
    "payment_intent.canceled": _unless_of_session(_nothing),
    "payment_intent.payment_failed": _attempt_failed,
    "refund.created": refund_of,
    "refund.updated": refund_of,
    "refund.failed": refund_of,
    "charge.refund.updated": refund_of,
    "charge.refunded": _charge_refunded,
    "charge.dispute.created": dispute_of,
    "charge.dispute.updated": dispute_of,
    "charge.dispute.closed": dispute_of,
    "charge.dispute.funds_withdrawn": dispute_of,
    "charge.dispute.funds_reinstated": dispute_of,
}
