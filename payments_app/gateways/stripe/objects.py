"""Stripe's objects, as its API answers with them and its webhooks carry them, as plain values of ours."""

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
from payments_app.gateways.events import OtherMode

# Whatever else a PaymentIntent is, the patient has something to do before money moves.
_SESSION_STATUSES = {
    "processing": SessionStatus.PROCESSING,
    "succeeded": SessionStatus.SUCCEEDED,
    "canceled": SessionStatus.CANCELLED,
}
_REFUND_IS_OVER = ("failed", "canceled")

_OUR_ID = re.compile(r"[1-9][0-9]{0,18}")
# What a signed 64-bit column holds.
_MOST = 2**63 - 1
# What the columns of references hold; Stripe's ids are far shorter.
_LONGEST_ID = 255


# How Stripe's keys begin, secret and restricted ones, and whether what they see is live. Sandboxes are test mode.
_MODES = {"sk_test_": False, "rk_test_": False, "sk_live_": True, "rk_live_": True}


class Unreadable(ValueError):
    """Not an object of Stripe's as its documentation describes them."""


def livemode_of(api_key: str | None) -> bool | None:
    """Whether a key is one of live mode; None if its spelling does not tell."""
    return _MODES.get((api_key or "")[: len("sk_test_")])


def of_mode(thing: Mapping[str, Any], livemode: bool | None) -> Mapping[str, Any]:
    """The object itself; one without ``livemode`` is not judged, and without a known mode of ours none is.

    Raises:
        OtherMode: it is of the other mode.
    """
    told = thing.get("livemode")
    if isinstance(told, bool) and livemode is not None and told is not livemode:
        raise OtherMode(text_or(thing.get("id"), "none"))
    return thing


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


def text_of(value: Any) -> str:
    """An id or another word.

    Raises:
        Unreadable: no text, or none that both databases can keep.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID or not (value.isascii() and value.isprintable()):
        raise Unreadable
    return value


def text_or(value: Any, otherwise: str) -> str:
    """The same, or something else if it is none."""
    try:
        return text_of(value)
    except Unreadable:
        return otherwise


def amount_of(value: Any, *, least: int) -> int:
    """An amount in minor units.

    Raises:
        Unreadable: no whole number, or none of that size.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise Unreadable
    return value


def _why_it_failed(refund: Mapping[str, Any]) -> str:
    reason = text_of(refund.get("failure_reason") or refund["status"])
    return f"The gateway says: {reason.replace('_', ' ')}."


def _our_id(thing: Mapping[str, Any], name: str) -> int | None:
    value = (thing.get("metadata") or {}).get(name)
    if not isinstance(value, str) or not _OUR_ID.fullmatch(value) or int(value) > _MOST:
        return None
    return int(value)
