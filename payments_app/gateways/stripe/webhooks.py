"""Stripe's webhook events: whether they are Stripe's, and what of them concerns us.

Signatures: https://docs.stripe.com/webhooks#verify-manually. An event is judged by its signed body alone.
Whatever is signed is an event, in a shape that we know or not: Stripe adds new ones, such as its thin events
(https://docs.stripe.com/webhooks#event-destinations), and a refusal would only make it send them again.
"""

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from payments_app.gateways.events import (
    ChargeRefunded,
    EventPayload,
    GatewayEvent,
    InvalidSignature,
    PaymentAttemptFailed,
)
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

# Seconds between the signing and the arrival: Stripe's own libraries' tolerance. Each delivery is signed anew.
TOLERANCE_SECONDS = 300

# A thin event about an object of API v1 has the name that the whole event has, after this.
_THIN = "v1."

# What reading a member of an object raises if Stripe, or whoever has its secret, wrote something else there.
_UNEXPECTED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError)


def read_event(
    body: bytes, signature: str | None, secrets: Sequence[str], *, livemode: bool | None, received_at: datetime
) -> GatewayEvent:
    """The event in a webhook's body. What it does not say of itself, or in no way that can be kept, is made up.

    Raises:
        InvalidSignature: no secret signed it within the last 300 seconds (400).
        OtherMode: it is, or tells of an object, of the other mode than ``livemode``, if that is known (400).
    """
    if not any(_is_signed(body, signature, secret) for secret in secrets):
        raise InvalidSignature
    event = of_mode(_parsed(body), livemode)
    thing = of_mode(_members_of(_members_of(event.get("data")).get("object")), livemode)
    payload, is_readable = _read(event.get("type"), thing)
    return GatewayEvent(
        event_id=_id_of(event, body),
        type=text_or(event.get("type"), "unreadable"),
        reference=text_or((thing or _members_of(event.get("related_object"))).get("id"), "none"),
        created_at=_created_at(event.get("created")) or received_at,
        payload=payload,
        is_readable=is_readable,
    )


def _is_signed(body: bytes, signature: str | None, secret: str) -> bool:
    """Over the bytes, where Stripe's library takes text: what is signed is kept, UTF-8 or not."""
    elements = [element.strip().partition("=") for element in (signature or "").split(",")]
    times = [value for name, _, value in elements if name == "t"]
    if len(times) != 1 or not _SECONDS.fullmatch(times[0]):  # of several, some take the first, and others the last
        return False
    if int(times[0]) < time.time() - TOLERANCE_SECONDS:
        return False
    expected = hmac.new(secret.encode(), times[0].encode() + b"." + body, hashlib.sha256).hexdigest().encode()
    ours = [value.encode(errors="replace") for name, _, value in elements if name == "v1"]
    return any([hmac.compare_digest(expected, value) for value in ours])  # noqa: C419  # each is compared


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        return _members_of(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _members_of(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _id_of(event: Mapping[str, Any], body: bytes) -> str:
    """The event's id, or instead of one that cannot be kept another that is the same at each delivery."""
    event_id = event.get("id")
    named = event_id.encode(errors="surrogatepass") if isinstance(event_id, str) and event_id else body
    return text_or(event_id, f"sha256:{hashlib.sha256(named).hexdigest()}")


def _created_at(told: Any) -> datetime | None:
    """Seconds since 1970 in an event of API v1, ISO 8601 in one of v2."""
    try:
        moment = datetime.fromisoformat(told) if isinstance(told, str) else datetime.fromtimestamp(told, UTC)
        return moment.astimezone(UTC)
    except _UNEXPECTED:
        return None


def _read(event_type: Any, thing: Mapping[str, Any]) -> tuple[EventPayload | None, bool]:
    """What an event says of what we follow, and whether that could be read."""
    if not isinstance(event_type, str):
        return None, False
    if event_type not in _READERS:
        # A thin event of something that we follow names it, and does not say what became of it.
        return None, event_type.removeprefix(_THIN) not in _READERS
    try:
        return _READERS[event_type](thing), True
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
