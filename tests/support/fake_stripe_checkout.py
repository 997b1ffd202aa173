"""Checkout Sessions of the fake Stripe: what its API does with them, and its own page, on which customers pay."""

import html
import secrets
import time
from collections.abc import Callable, Collection
from copy import deepcopy
from typing import Any
from urllib.parse import urlsplit

Wire = dict[str, Any]

# Seconds from now between which ``expires_at`` has to be.
SHORTEST_LIFE, LONGEST_LIFE = 30 * 60, 24 * 3600

KNOWN = (
    "mode",
    "line_items",
    "client_reference_id",
    "metadata",
    "payment_intent_data",
    "success_url",
    "cancel_url",
    "locale",
    "expires_at",
)
LOCALES = ("auto", "en", "id")
LONGEST_NAME = 250


class Refused(Exception):
    """What a parameter makes Stripe refuse: a message, and the parameter's name."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.message, self.param = message, param


def new_session(params: Wire, *, page: str, metadata: Callable[[Wire], dict[str, str]]) -> Wire:
    """A session as Stripe makes it of these parameters, all texts; its intent does not exist yet."""
    if params.get("mode") != "payment":
        raise Refused("Invalid mode: must be payment", "mode")
    amount, currency = _line_of(params)
    locale = params.get("locale", "auto")
    if locale not in LOCALES:
        raise Refused(f"Invalid locale: must be one of {', '.join(LOCALES)}", "locale")
    for name in ("success_url", "cancel_url"):
        if urlsplit(params.get(name, "")).scheme not in ("http", "https"):
            raise Refused("Not a valid URL", name)
    now = int(time.time())
    expires_at = int(params.get("expires_at", now + LONGEST_LIFE))
    if not now + SHORTEST_LIFE <= expires_at <= now + LONGEST_LIFE:
        raise Refused("The `expires_at` timestamp must be between 30 minutes and 24 hours from now.", "expires_at")
    session_id = f"cs_test_{secrets.token_hex(20)}"
    return {
        "id": session_id,
        "object": "checkout.session",
        "amount_subtotal": amount,
        "amount_total": amount,
        "cancel_url": params["cancel_url"],
        "client_reference_id": params.get("client_reference_id"),
        "created": now,
        "currency": currency,
        "expires_at": expires_at,
        "livemode": False,
        "locale": locale,
        "metadata": metadata(params),
        "mode": "payment",
        "payment_intent": None,
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "status": "open",
        "success_url": params["success_url"],
        "url": f"{page}/c/pay/{session_id}",
        # Not Stripe's: what the intent is to get once the customer submits the form.
        "_intent_metadata": metadata(params.get("payment_intent_data") or {}),
    }


def _line_of(params: Wire) -> tuple[int, str]:
    """Amount and currency of the one line; a form has the list as a dict of numbers."""
    lines = params.get("line_items") or {}
    if not isinstance(lines, dict) or list(lines) != ["0"]:
        raise Refused("Expected one line item", "line_items")
    price = lines["0"].get("price_data") or {}
    name = (price.get("product_data") or {}).get("name", "")
    if not 0 < len(name) <= LONGEST_NAME:
        raise Refused("Invalid product name", "line_items[0][price_data][product_data][name]")
    if lines["0"].get("quantity") != "1" or not str(price.get("unit_amount", "")).isdecimal():
        raise Refused("Invalid integer", "line_items[0]")
    return int(price["unit_amount"]), str(price["currency"]).lower()


def shown(session: Wire, expand: Collection[str], intents: dict[str, Wire]) -> Wire:
    """The session as it goes over the wire."""
    wire = {name: deepcopy(value) for name, value in session.items() if not name.startswith("_")}
    if "payment_intent" in expand and wire["payment_intent"] is not None:
        wire["payment_intent"] = deepcopy(intents[wire["payment_intent"]])
    return wire


def page_of(session: Wire, note: str = "") -> bytes:
    """A small page of forms: pay, decline, a payment that takes days, or leave."""
    if session["status"] != "open":
        return b"<!doctype html><title>Checkout</title><h1>This session has ended</h1>"
    amount = f"{session['amount_total'] / 100:.2f} {session['currency'].upper()}"
    buttons = "".join(
        f'<button name="do" value="{do}">{label}</button>'
        for do, label in (("pay", "Pay"), ("decline", "Decline"), ("later", "Pay by bank debit"))
    )
    leave = html.escape(session["cancel_url"], quote=True)
    return (
        f'<!doctype html><html lang="{session["locale"]}"><title>Checkout</title><h1>{amount}</h1>'
        f'<p role="alert">{html.escape(note)}</p><form method="post">{buttons}</form><a href="{leave}">Leave</a>'
    ).encode()
