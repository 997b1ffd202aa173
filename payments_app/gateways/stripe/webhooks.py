"""Verifies and reads Stripe's webhook events.

Signatures: https://docs.stripe.com/webhooks#verify-manually. Only the signed body counts. Every signed body is an
event, even in an unknown shape: Stripe adds new shapes, such as thin events
(https://docs.stripe.com/webhooks#event-destinations), and would send a refused event again and again.
"""

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from payments_app.gateways.base import CheckoutSession, GatewayRefund
from payments_app.gateways.stripe.objects import (
    amount_of,
    of_mode,
    reference_of,
    refund_of,
    session_of,
    text_of,
    text_or,
)

# Seconds since 1970.
_SECONDS = re.compile(r"[0-9]{1,12}")

# The maximum age of a signature in seconds, as in Stripe's own libraries. Each delivery has a new signature.
TOLERANCE_SECONDS = 300

# The type of a thin event about an object of API v1 is this prefix and the type of the full event.
_THIN = "v1."

# Errors of reading a member with an unexpected value. Not only Stripe may send one: also a holder of its secret.
_UNEXPECTED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError)


class InvalidSignature(Exception):
    """Not signed by the gateway, or the signature is too old."""


@dataclass(frozen=True, slots=True)
class PaymentAttemptFailed:
    """The patient's card was declined; the same session may still succeed."""

    session: CheckoutSession


@dataclass(frozen=True, slots=True)
class ChargeRefunded:
    """The total that is returned or on its way back, in minor units; some API versions also list the refunds."""

    transaction_id: str | None
    returned_minor: int
    currency: str
    refunds: tuple[GatewayRefund, ...]


EventPayload = CheckoutSession | PaymentAttemptFailed | GatewayRefund | ChargeRefunded


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayEvent:
    """A verified event of the gateway.

    ``payload`` is None if the event's type does not concern us, or if the event is unreadable. ``is_readable`` tells
    the two apart.
    """

    event_id: str
    type: str
    reference: str
    created_at: datetime
    payload: EventPayload | None
    is_readable: bool


def read_event(
    body: bytes, signature: str | None, secrets: Sequence[str], *, livemode: bool | None, received_at: datetime
) -> GatewayEvent:
    """Verify and read an event. Members that are missing or cannot be stored get default values.

    Raises:
        InvalidSignature: not signed with one of ``secrets`` within the last 300 seconds (400).
        OtherMode: the mode of the event or its object is not ``livemode``, if that is known (400).
    """
    if not any(_is_signed(body, signature, secret) for secret in secrets):
        raise InvalidSignature
    event = of_mode(_parsed(body), livemode)
    stripe_object = of_mode(_members_of(_members_of(event.get("data")).get("object")), livemode)
    payload, is_readable = _read(event.get("type"), stripe_object)
    return GatewayEvent(
        event_id=_id_of(event, body),
        type=text_or(event.get("type"), "unreadable"),
        reference=text_or((stripe_object or _members_of(event.get("related_object"))).get("id"), "none"),
        created_at=_created_at(event.get("created")) or received_at,
        payload=payload,
        is_readable=is_readable,
    )


def _is_signed(body: bytes, signature: str | None, secret: str) -> bool:
    """Verifies the bytes of the body. Stripe's library needs text, but a signed body may not be UTF-8."""
    elements = [element.strip().partition("=") for element in (signature or "").split(",")]
    times = [value for name, _, value in elements if name == "t"]
    if len(times) != 1 or not _SECONDS.fullmatch(times[0]):  # several are ambiguous: which one counts?
        return False
    if int(times[0]) < time.time() - TOLERANCE_SECONDS:
        return False
    expected = hmac.new(secret.encode(), times[0].encode() + b"." + body, hashlib.sha256).hexdigest().encode()
    signatures = [value.encode(errors="replace") for name, _, value in elements if name == "v1"]
    return any([hmac.compare_digest(expected, value) for value in signatures])  # noqa: C419  # a list: compares all


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        return _members_of(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _members_of(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _id_of(event: Mapping[str, Any], body: bytes) -> str:
    """The event's id; if it cannot be stored, a hash that is the same for each delivery."""
    event_id = event.get("id")
    hashed = event_id.encode(errors="surrogatepass") if isinstance(event_id, str) and event_id else body
    return text_or(event_id, f"sha256:{hashlib.sha256(hashed).hexdigest()}")


def _created_at(value: Any) -> datetime | None:
    """Seconds since 1970 in an event of API v1, ISO 8601 in one of v2."""
    try:
        created_at = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
        return created_at.astimezone(UTC)
    except _UNEXPECTED:
        return None


def _read(event_type: Any, stripe_object: Mapping[str, Any]) -> tuple[EventPayload | None, bool]:
    """The payload of an event, and whether the event is readable."""
    if not isinstance(event_type, str):
        return None, False
    if event_type not in _READERS:
        # A thin event of a type that concerns us has the object's id only, and not its state: it is unreadable.
        return None, event_type.removeprefix(_THIN) not in _READERS
    try:
        return _READERS[event_type](stripe_object), True
    except _UNEXPECTED:
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
