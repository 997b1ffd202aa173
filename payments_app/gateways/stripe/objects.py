"""Converts Stripe's objects, from its API and its webhooks, to plain values."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from payments_app.gateways.base import (
    Approved,
    CheckoutSession,
    Declined,
    GatewayPayment,
    GatewayRefund,
    ListedPayment,
    SessionStatus,
)
from payments_app.gateways.events import DisputeStatus, GatewayDispute
from payments_app.gateways.untrusted import Unreadable, amount_of, currency_of, our_id, text_of, text_or

# In every other status of a PaymentIntent, the patient has to do something before money moves.
_SESSION_STATUSES = {
    "processing": SessionStatus.PROCESSING,
    "succeeded": SessionStatus.SUCCEEDED,
    "canceled": SessionStatus.CANCELLED,
}
# A PaymentIntent of a form that was submitted, whose money did not come.
_NOTHING_IS_ON_ITS_WAY = ("requires_payment_method", "canceled")
_REFUND_IS_OVER = ("failed", "canceled")
# https://docs.stripe.com/api/disputes/object. Of ``prevented`` and ``charge_refunded`` the patient has the money back.
_DISPUTE_STATUSES = {
    "warning_needs_response": DisputeStatus.INQUIRY,
    "warning_under_review": DisputeStatus.INQUIRY,
    "warning_closed": DisputeStatus.INQUIRY_CLOSED,
    "needs_response": DisputeStatus.NEEDS_RESPONSE,
    "under_review": DisputeStatus.UNDER_REVIEW,
    "won": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
    "prevented": DisputeStatus.LOST,
    "charge_refunded": DisputeStatus.LOST,
}


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
            payment_id=metadata_id(intent, "payment_id"),
            consultation_id=metadata_id(intent, "consultation_id"),
        ),
    )


def checkout_session_of(session: Mapping[str, Any]) -> CheckoutSession:
    """Convert a Checkout Session: https://docs.stripe.com/api/checkout/sessions/object.

    ``complete`` means that the customer has submitted the form, and not that money came: ``payment_status`` says that,
    and of money that takes days, the PaymentIntent, if the session has it with it.
    """
    intent = session.get("payment_intent")
    return CheckoutSession(
        reference=text_of(session["id"]),
        status=_checkout_status(session, intent),
        redirect_url=session.get("url"),
        money=GatewayPayment(
            transaction_id=reference_of(intent),
            amount_minor=amount_of(session["amount_total"], least=0),
            currency=text_of(session["currency"]).upper(),
            payment_id=metadata_id(session, "payment_id"),
            consultation_id=metadata_id(session, "consultation_id"),
        ),
    )


def _checkout_status(session: Mapping[str, Any], intent: Any) -> SessionStatus:
    match text_of(session["status"]), text_of(session["payment_status"]):
        case "expired", _:
            return SessionStatus.EXPIRED
        case "complete", "paid":
            if intent is None:
                raise Unreadable
            return SessionStatus.SUCCEEDED
        case "complete", _:
            has_failed = isinstance(intent, Mapping) and intent["status"] in _NOTHING_IS_ON_ITS_WAY
            return SessionStatus.EXPIRED if has_failed else SessionStatus.PROCESSING
        case "open", _:
            return SessionStatus.OPEN
    raise Unreadable


def is_checkout_session(reference: str) -> bool:
    """Whether that is the id of a Checkout Session. Any other session of ours is a PaymentIntent."""
    return reference.startswith("cs_")


def is_of_checkout_session(intent: Mapping[str, Any]) -> bool:
    """Whether a PaymentIntent was made by one of our Checkout Sessions, which speaks for both."""
    return "checkout_session" in (intent.get("metadata") or {})


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
        refund_id=metadata_id(refund, "refund_id"),
        payment_id=metadata_id(refund, "payment_id"),
        outcome=outcome,
    )


def charge_of(charge: Mapping[str, Any]) -> ListedPayment:
    """A Charge, which is an attempt to pay a PaymentIntent: https://docs.stripe.com/api/charges/object.

    Our name for the money is the PaymentIntent's; a charge without one was not made by this service.
    """
    transaction_id = reference_of(charge.get("payment_intent"))
    captured_minor = amount_of(charge["amount_captured"], least=0)
    return ListedPayment(
        reference=transaction_id or text_of(charge["id"]),
        money=GatewayPayment(
            transaction_id=transaction_id,
            amount_minor=captured_minor,
            currency=text_of(charge["currency"]).upper(),
            payment_id=metadata_id(charge, "payment_id"),
            consultation_id=metadata_id(charge, "consultation_id"),
        ),
        is_paid={"succeeded": captured_minor > 0, "pending": False, "failed": False}.get(text_of(charge["status"])),
    )


def dispute_of(dispute: Mapping[str, Any]) -> GatewayDispute:
    """A Dispute: https://docs.stripe.com/api/disputes/object. A status that is new to us blocks refunds."""
    status = text_of(dispute["status"])
    unknown = DisputeStatus.INQUIRY if status.startswith("warning_") else DisputeStatus.NEEDS_RESPONSE
    return GatewayDispute(
        reference=text_of(dispute["id"]),
        transaction_id=reference_of(dispute.get("payment_intent")),
        amount_minor=amount_of(dispute["amount"], least=1),
        currency=currency_of(dispute["currency"]),
        reason=text_or(dispute.get("reason"), "") or None,
        status=_DISPUTE_STATUSES.get(status, unknown),
        due_at=_due_at(dispute.get("evidence_details")),
    )


def _due_at(details: Any) -> datetime | None:
    """Until when evidence is taken. None if that is not said in a way that can be kept: the dispute itself matters."""
    try:
        return datetime.fromtimestamp(details["due_by"], UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def reference_of(value: Any) -> str | None:
    """The id of a linked object, which Stripe sends as an id or, if expanded, as the object; None if there is none."""
    reference = value["id"] if isinstance(value, Mapping) else value
    return None if reference is None else text_of(reference)


def _failure_reason(refund: Mapping[str, Any]) -> str:
    reason = text_of(refund.get("failure_reason") or refund["status"])
    return f"The gateway says: {reason.replace('_', ' ')}."


def metadata_id(stripe_object: Mapping[str, Any], name: str) -> int | None:
    return our_id((stripe_object.get("metadata") or {}).get(name))
