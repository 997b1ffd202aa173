"""Converts Stripe's objects, from its API and its webhooks, to plain values."""

import re
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

# In every other status of a PaymentIntent, the patient has to do something before money moves.
_SESSION_STATUSES = {
    "processing": SessionStatus.PROCESSING,
    "succeeded": SessionStatus.SUCCEEDED,
    "canceled": SessionStatus.CANCELLED,
}
_REFUND_IS_OVER = ("failed", "canceled")

_OUR_ID = re.compile(r"[1-9][0-9]{0,18}")
# The maximum of a signed 64-bit column.
_MAX_INTEGER = 2**63 - 1
# Characters; the length of the columns of references. Stripe's ids are far shorter.
_MAX_ID_LENGTH = 255


# Prefixes of Stripe's secret and restricted keys, and whether they are live mode. Stripe's sandboxes are test mode.
_MODES = {"sk_test_": False, "rk_test_": False, "sk_live_": True, "rk_live_": True}


class Unreadable(ValueError):
    """Not an object as Stripe's documentation describes it."""


class OtherMode(Unreadable):
    """The object's mode, test or live, is not that of our key. In test mode no money moves."""

    def __init__(self, reference: str) -> None:
        super().__init__(reference)
        self.reference = reference


def livemode_of(api_key: str | None) -> bool | None:
    """Whether an API key is a live-mode key; None if its prefix is unknown."""
    return _MODES.get((api_key or "")[: len("sk_test_")])


def of_mode(stripe_object: Mapping[str, Any], livemode: bool | None) -> Mapping[str, Any]:
    """Return the object if its mode is ours. Not checked if the object has no ``livemode``, or if our mode is unknown.

    Raises:
        OtherMode: the object is of the other mode.
    """
    object_livemode = stripe_object.get("livemode")
    if isinstance(object_livemode, bool) and livemode is not None and object_livemode is not livemode:
        raise OtherMode(text_or(stripe_object.get("id"), "none"))
    return stripe_object


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


def text_of(value: Any) -> str:
    """An id, a status or another short text.

    Raises:
        Unreadable: not a text, or not one that both databases can store.
    """
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _MAX_ID_LENGTH
        or not (value.isascii() and value.isprintable())
    ):
        raise Unreadable
    return value


def text_or(value: Any, default: str) -> str:
    """Like ``text_of``, but ``default`` instead of an error."""
    try:
        return text_of(value)
    except Unreadable:
        return default


def amount_of(value: Any, *, least: int) -> int:
    """An amount in minor units.

    Raises:
        Unreadable: not an integer from ``least`` to 2^63-1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MAX_INTEGER:
        raise Unreadable
    return value


def _failure_reason(refund: Mapping[str, Any]) -> str:
    reason = text_of(refund.get("failure_reason") or refund["status"])
    return f"The gateway says: {reason.replace('_', ' ')}."


def _our_id(stripe_object: Mapping[str, Any], name: str) -> int | None:
    value = (stripe_object.get("metadata") or {}).get(name)
    if not isinstance(value, str) or not _OUR_ID.fullmatch(value) or int(value) > _MAX_INTEGER:
        return None
    return int(value)
