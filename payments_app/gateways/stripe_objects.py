"""Stripe's objects, as its API answers with them and its webhooks carry them, as plain values of ours."""

import re
from collections.abc import Mapping
from typing import Any

from payments_app.gateways.base import (
    Approved,
    CheckoutSession,
    Declined,
    GatewayRefund,
    Money,
    SessionStatus,
)

# Whatever else a PaymentIntent is, the patient has something to do before money moves.
_SESSION_STATUSES = {
    "processing": SessionStatus.PROCESSING,
    "succeeded": SessionStatus.SUCCEEDED,
    "canceled": SessionStatus.CANCELLED,
}
_REFUND_IS_OVER = ("failed", "canceled")

_OUR_ID = re.compile(r"[1-9][0-9]{0,17}")


def session_of(intent: Mapping[str, Any]) -> CheckoutSession:
    """A PaymentIntent: https://docs.stripe.com/api/payment_intents/object."""
    return CheckoutSession(
        reference=intent["id"],
        status=_SESSION_STATUSES.get(intent["status"], SessionStatus.OPEN),
        client_secret=intent.get("client_secret"),
        money=Money(
            transaction_id=intent["id"],
            amount_minor=intent.get("amount_received", intent["amount"]),
            currency=intent["currency"].upper(),
            payment_id=_our_id(intent, "payment_id"),
            consultation_id=_our_id(intent, "consultation_id"),
        ),
    )


def refund_of(refund: Mapping[str, Any]) -> GatewayRefund:
    """A Refund: https://docs.stripe.com/api/refunds/object. ``requires_action`` is on its way as ``pending`` is."""
    status = refund["status"]
    if status in _REFUND_IS_OVER:
        outcome: Approved | Declined = Declined(_why_it_failed(refund))
    else:
        outcome = Approved(refund["id"], settled=status == "succeeded")
    return GatewayRefund(
        reference=refund["id"],
        transaction_id=reference_of(refund["payment_intent"]),
        amount_minor=refund["amount"],
        currency=refund["currency"].upper(),
        refund_id=_our_id(refund, "refund_id"),
        payment_id=_our_id(refund, "payment_id"),
        outcome=outcome,
    )


def reference_of(named: Any) -> str:
    """The id of something that Stripe gives as its id or, where asked to expand it, as itself."""
    reference = named["id"] if isinstance(named, Mapping) else named
    return reference if isinstance(reference, str) else ""


def _why_it_failed(refund: Mapping[str, Any]) -> str:
    reason = refund.get("failure_reason") or refund["status"]
    return f"The gateway says: {str(reason).replace('_', ' ')}."


def _our_id(thing: Mapping[str, Any], name: str) -> int | None:
    value = (thing.get("metadata") or {}).get(name)
    return int(value) if isinstance(value, str) and _OUR_ID.fullmatch(value) else None
