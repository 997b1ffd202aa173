"""Stripe's webhook events: whether they are Stripe's, and what of them concerns us.

Signatures: https://docs.stripe.com/webhooks#verify-manually. An event is judged by its signed body alone.
Whatever is signed is an event, in a shape that we know or not: Stripe adds new ones, such as its thin events
(https://docs.stripe.com/webhooks#event-destinations), and a refusal would only make it send them again.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from payments_app.gateways.events import (
    ChargeRefunded,
    EventPayload,
    GatewayEvent,
    InvalidSignature,
    PaymentAttemptFailed,
)
from payments_app.gateways.signatures import valid_signatures
from payments_app.gateways.stripe.objects import reference_of, refund_of, session_of
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

# A thin event about an object of API v1 has the name that the whole event has, after this.
_THIN = "v1."


def read_event(
    body: bytes, signature: str | None, secrets: Sequence[str], *, livemode: bool | None, received_at: datetime
) -> GatewayEvent:
    """The event in a webhook's body. What it does not say of itself, or in no way that can be kept, is made up.

    Raises:
        InvalidSignature: no secret signed it within the last 300 seconds (400).
        OtherMode: it is, or tells of an object, of the other mode than ``livemode``, if that is known (400).
    """
    if "v1" not in valid_signatures(signature, body, secrets, at=received_at):
        raise InvalidSignature
    event = of_mode(parsed(body), livemode)
    thing = of_mode(members_of(members_of(event.get("data")).get("object")), livemode)
    payload, is_readable = _read(event.get("type"), thing)
    return GatewayEvent(
        event_id=event_id_of(event.get("id"), body),
        type=text_or(event.get("type"), "unreadable"),
        reference=text_or((thing or members_of(event.get("related_object"))).get("id"), "none"),
        created_at=moment_or_none(event.get("created")) or received_at,
        payload=payload,
        is_readable=is_readable,
    )


def _read(event_type: Any, thing: Mapping[str, Any]) -> tuple[EventPayload | None, bool]:
    """What an event says of what we follow, and whether that could be read."""
    if not isinstance(event_type, str):
        return None, False
    if event_type not in _READERS:
        # A thin event of something that we follow names it, and does not say what became of it.
        return None, event_type.removeprefix(_THIN) not in _READERS
    try:
        return _READERS[event_type](thing), True
    except UNEXPECTED:
        return None, False


def _attempt_failed(intent: Mapping[str, Any]) -> PaymentAttemptFailed:
    return PaymentAttemptFailed(session_of(intent))


def _charge_refunded(charge: Mapping[str, Any]) -> ChargeRefunded:
    refunds = tuple(map(refund_of, (charge.get("refunds") or {}).get("data") or ()))
    return ChargeRefunded(
        transaction_id=reference_of(charge["payment_intent"]),
        returned_minor=amount_of(charge["amount_refunded"], least=0),
        currency=text_of(charge["currency"]).upper(),
        refunds=refunds,
    )


_READERS: Mapping[str, Callable[[Mapping[str, Any]], EventPayload]] = {
    "payment_intent.processing": session_of,
    "payment_intent.succeeded": session_of,
    "payment_intent.canceled": session_of,
    "payment_intent.payment_failed": _attempt_failed,
    "refund.created": refund_of,
    "refund.updated": refund_of,
    "refund.failed": refund_of,
    "charge.refund.updated": refund_of,
    "charge.refunded": _charge_refunded,
}
