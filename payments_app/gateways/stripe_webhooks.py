"""Stripe's webhook events: whether they are Stripe's, and what of them concerns us.

Signatures: https://docs.stripe.com/webhooks#verify-official-libraries. An event is judged by its signed body alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stripe import SignatureVerificationError, WebhookSignature

from payments_app.gateways.base import CheckoutSession, GatewayRefund
from payments_app.gateways.stripe_objects import amount_of, reference_of, refund_of, session_of, text_of

# Seconds between the signing and the arrival: Stripe's own libraries' tolerance. Each delivery is signed anew.
TOLERANCE_SECONDS = 300


class NotGenuine(Exception):
    """Not signed by the gateway, or not now; or not an event at all."""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The patient's card was declined; the same session may still succeed."""

    session: CheckoutSession


@dataclass(frozen=True, slots=True)
class ChargeRefunded:
    """How much of a payment is returned or on its way back by now, and, in some versions of the API, by what."""

    transaction_id: str | None
    returned_minor: int
    currency: str
    refunds: tuple[GatewayRefund, ...]


News = CheckoutSession | AttemptFailed | GatewayRefund | ChargeRefunded


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayEvent:
    """An event that is the gateway's; ``news`` is None where it is about nothing that we follow."""

    event_id: str
    type: str
    reference: str
    created_at: datetime
    news: News | None


def read_event(body: bytes, signature: str | None, secrets: Sequence[str]) -> GatewayEvent:
    """The event in a webhook's body.

    Raises:
        NotGenuine: no secret signed it within the last 300 seconds, or it is no event (400).
    """
    if not any(_is_signed(body, signature, secret) for secret in secrets):
        raise NotGenuine
    try:
        event = json.loads(body)
        return GatewayEvent(
            event_id=text_of(event["id"]),
            type=text_of(event["type"]),
            reference=text_of(event["data"]["object"].get("id") or "none"),
            created_at=datetime.fromtimestamp(event["created"], UTC),
            news=_news(event["type"], event["data"]["object"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError) as error:
        raise NotGenuine from error


def _is_signed(body: bytes, signature: str | None, secret: str) -> bool:
    try:
        WebhookSignature.verify_header(body.decode(), signature, secret, TOLERANCE_SECONDS)
    except (SignatureVerificationError, ValueError, TypeError):  # among them a header that is not ASCII
        return False
    return True


def _news(event_type: str, thing: Mapping[str, Any]) -> News | None:
    match event_type:
        case "payment_intent.processing" | "payment_intent.succeeded" | "payment_intent.canceled":
            return session_of(thing)
        case "payment_intent.payment_failed":
            return AttemptFailed(session_of(thing))
        case "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated":
            return refund_of(thing)
        case "charge.refunded":
            return _charge_refunded(thing)
    return None


def _charge_refunded(charge: Mapping[str, Any]) -> ChargeRefunded:
    refunds = tuple(map(refund_of, (charge.get("refunds") or {}).get("data") or ()))
    return ChargeRefunded(
        transaction_id=reference_of(charge["payment_intent"]),
        returned_minor=amount_of(charge["amount_refunded"], least=0),
        currency=text_of(charge["currency"]).upper(),
        refunds=refunds,
    )
