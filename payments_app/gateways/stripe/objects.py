"""Converts Stripe's objects, from its API and its webhooks, to plain values."""

from collections.abc import Mapping
from typing import Any

from payments_app.gateways.base import (
    Approved,
    CheckoutSession,
    Declined,
    GatewayPayment,
    GatewayRefund,
    SessionStatus,
)
from payments_app.gateways.untrusted import amount_of, our_id, text_of

# In every other status of a PaymentIntent, the patient has to do something before money moves.
_SESSION_STATUSES = {
    "processing": SessionStatus.PROCESSING,
    "succeeded": SessionStatus.SUCCEEDED,
    "canceled": SessionStatus.CANCELLED,
}
_REFUND_IS_OVER = ("failed", "canceled")


def session_of(intent: Mapping[str, Any]) -> CheckoutSession:
    """A PaymentIntent: https://docs.stripe.com/api/payment_intents/object."""
    return CheckoutSession(
        reference=text_of(intent["id"]),
        status=_SESSION_STATUSES.get(intent["status"], SessionStatus.OPEN),
        client_secret=intent.get("client_secret"),
        money=GatewayPayment(
            transaction_id=text_of(intent["id"]),
            amount_minor=amount_of(intent.get("amount_received", intent["amount"]), least=0),
            currency=text_of(intent["currency"]).upper(),
            payment_id=_our_id(intent, "payment_id"),
            consultation_id=_our_id(intent, "consultation_id"),
        ),
    )


def refund_of(refund: Mapping[str, Any]) -> GatewayRefund:
    """A Refund: https://docs.stripe.com/api/refunds/object. ``requires_action`` counts as pending."""
    status = refund["status"]
    if status in _REFUND_IS_OVER:
        outcome: Approved | Declined = Declined(_failure_reason(refund), reference=text_of(refund["id"]))
    else:
        outcome = Approved(text_of(refund["id"]), settled=status == "succeeded")
    return GatewayRefund(
        reference=text_of(refund["id"]),
        transaction_id=reference_of(refund["payment_intent"]),
        amount_minor=amount_of(refund["amount"], least=1),
        currency=text_of(refund["currency"]).upper(),
        refund_id=_our_id(refund, "refund_id"),
        payment_id=_our_id(refund, "payment_id"),
        outcome=outcome,
    )


def reference_of(value: Any) -> str | None:
    """The id of a linked object, which Stripe sends as an id or, if expanded, as the object; None if there is none."""
    reference = value["id"] if isinstance(value, Mapping) else value
    return None if reference is None else text_of(reference)


def _failure_reason(refund: Mapping[str, Any]) -> str:
    reason = text_of(refund.get("failure_reason") or refund["status"])
    return f"The gateway says: {reason.replace('_', ' ')}."


def _our_id(stripe_object: Mapping[str, Any], name: str) -> int | None:
    return our_id((stripe_object.get("metadata") or {}).get(name))
