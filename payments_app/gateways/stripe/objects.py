"""Stripe's objects, as its API answers with them and its webhooks carry them, as plain values of ours."""

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

# Whatever else a PaymentIntent is, the patient has something to do before money moves.
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
    """A Refund: https://docs.stripe.com/api/refunds/object. ``requires_action`` is on its way as ``pending`` is."""
    status = refund["status"]
    if status in _REFUND_IS_OVER:
        outcome: Approved | Declined = Declined(_why_it_failed(refund), reference=text_of(refund["id"]))
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


def reference_of(named: Any) -> str | None:
    """The id of something that Stripe gives as its id or, where asked to expand it, as itself; None for none."""
    reference = named["id"] if isinstance(named, Mapping) else named
    return None if reference is None else text_of(reference)


def _why_it_failed(refund: Mapping[str, Any]) -> str:
    reason = text_of(refund.get("failure_reason") or refund["status"])
    return f"The gateway says: {reason.replace('_', ' ')}."


def _our_id(thing: Mapping[str, Any], name: str) -> int | None:
    return our_id((thing.get("metadata") or {}).get(name))
