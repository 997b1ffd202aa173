"""Test events and objects for a live key, by which no money has moved, and live ones for a test key: not believed."""

import json

import pytest
from flask import Flask

from tests.gateway_webhooks import send, state_of
from tests.support.apps import app_with
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.fake_stripe_state import Wire
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, stripe_settings

pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def payment_id(stripe_app: StripeApp) -> int:
    """A payment that was paid at Stripe, of which nobody has told us."""
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    return payment_id


def succeeded(stripe_app: StripeApp, *, event: object = ..., thing: object = ...) -> Wire:
    """The event of the payment's success, in which it and its object say so of their mode, or say nothing of it."""
    (reference,) = stripe_app.fake.intents
    told = stripe_app.fake.intent_event("succeeded", reference)
    for holder, livemode in ((told, event), (told["data"]["object"], thing)):
        del holder["livemode"]
        if livemode is not ...:
            holder["livemode"] = livemode
    return told


def deliver(app: Flask, stripe_app: StripeApp, event: Wire) -> ApiResponse:
    body = json.dumps(event).encode()
    return send(app, body, stripe_app.fake.sign(body))


def assert_refused(answer: ApiResponse, rows: Rows, payment_id: int) -> None:
    assert answer.status_code == 400
    assert answer.json["type"].endswith("/webhook-of-other-mode")
    assert rows.count("webhook_events") == 0
    assert state_of(rows, payment_id)["status"] == "pending"


@pytest.mark.parametrize("modes", [{"event": True}, {"thing": True}, {"event": False, "thing": True}], ids=str)
def test_a_live_event_or_object_for_a_test_key_is_400(
    stripe_app: StripeApp, payment_id: int, rows: Rows, caplog: pytest.LogCaptureFixture, modes: dict[str, bool]
) -> None:
    event = succeeded(stripe_app, **modes)

    assert_refused(deliver(stripe_app.app, stripe_app, event), rows, payment_id)
    assert "Webhook: other mode" in caplog.text
    assert (event["data"]["object"]["id"] if "thing" in modes else event["id"]) in caplog.text


@pytest.mark.parametrize("key", ["sk_live_1", "rk_live_1"])
def test_a_test_event_for_a_live_key_is_400(
    stripe_app: StripeApp, database: Database, payment_id: int, rows: Rows, key: str
) -> None:
    with app_with(database.url, **stripe_settings(stripe_app.fake, STRIPE_API_KEY=key)) as app:
        assert_refused(deliver(app, stripe_app, succeeded(stripe_app, event=False)), rows, payment_id)
        assert_refused(deliver(app, stripe_app, succeeded(stripe_app, event=True, thing=False)), rows, payment_id)
        assert deliver(app, stripe_app, succeeded(stripe_app, event=True, thing=True)).status_code == 200

    assert state_of(rows, payment_id)["status"] == "completed"


def test_a_thin_event_of_the_other_mode_is_400(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    thin = {"id": "evt_1", "object": "v2.core.event", "type": "v2.core.account.updated", "livemode": True}

    assert_refused(deliver(stripe_app.app, stripe_app, thin), rows, payment_id)


@pytest.mark.parametrize(
    "case",
    [
        ("sk_test_1", {}),
        ("rk_test_1", {"event": False, "thing": False}),
        ("sk_live_1", {}),
        ("sk_test_1", {"event": None, "thing": "yes"}),
        ("sk_org_1", {"event": True, "thing": False}),
    ],
    ids=str,
)
def test_what_does_not_tell_of_its_mode_is_not_judged(
    stripe_app: StripeApp, database: Database, payment_id: int, rows: Rows, case: tuple[str, dict[str, object]]
) -> None:
    key, modes = case
    with app_with(database.url, **stripe_settings(stripe_app.fake, STRIPE_API_KEY=key)) as app:
        answer = deliver(app, stripe_app, succeeded(stripe_app, **modes))

    assert answer.status_code == 200
    assert state_of(rows, payment_id)["status"] == "completed"


def test_a_payment_intent_of_the_other_mode_completes_and_ends_nothing(
    stripe_app: StripeApp, payment_id: int, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    (reference,) = stripe_app.fake.intents
    stripe_app.fake.tamper(reference, livemode=True)

    confirmed = stripe_app.people.patient.confirm(payment_id, reference)
    asked_again = stripe_app.people.patient.post(f"/payments/{payment_id}/checkout")
    cancelled = stripe_app.people.patient.post(f"/payments/{payment_id}/cancel")

    assert (confirmed.status_code, asked_again.status_code, cancelled.status_code) == (402, 503, 503)
    assert "test or live" in confirmed.json["detail"]
    assert reference in caplog.text
    assert state_of(rows, payment_id)["status"] == "pending"
    assert state_of(rows, payment_id)["received_minor"] == 0

    stripe_app.fake.tamper(reference, livemode=False)
    assert stripe_app.people.patient.confirm(payment_id, reference).status_code == 200
