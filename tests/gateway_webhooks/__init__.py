"""Delivers events of the fake Stripe to an app in this process."""

import json
from typing import Any

from flask import Flask

from tests.support.client import ApiResponse, client_of
from tests.support.fake_stripe_state import Wire
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp

URL = "/api/v1/webhooks/stripe"


def send(app: Flask, body: bytes, signature: str | None) -> ApiResponse:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if signature is not None:
        headers["Stripe-Signature"] = signature
    # A separate client for each: tests send from several threads.
    return client_of(app).post(URL, data=body, headers=headers)


def tell(stripe_app: StripeApp, event: Wire) -> None:
    """Deliver an event; the response has to be 200."""
    body = json.dumps(event, indent=2).encode()
    answer = send(stripe_app.app, body, stripe_app.fake.sign(body))
    assert answer.status_code == 200, answer.json


def state_of(rows: Rows, payment_id: int) -> dict[str, Any]:
    """Status, version and amounts of a payment, as stored."""
    return rows.one(
        "SELECT status, version, transaction_id, received_minor, refund_reserved_minor, refunded_minor, needs_review"
        " FROM payments WHERE id = :id",
        id=payment_id,
    )


def trail_of(rows: Rows, payment_id: int) -> list[str]:
    """The names of a payment's events, oldest first."""
    events = rows.all("SELECT event FROM payment_events WHERE payment_id = :id ORDER BY id", id=payment_id)
    return [event["event"] for event in events]
