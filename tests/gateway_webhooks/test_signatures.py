"""Who may tell us anything: whoever signed this very body with our secret, just now. Nobody else leaves a trace."""

import json
import time
from collections.abc import Callable

import pytest
from flask import Flask

from tests.gateway_webhooks import send, state_of
from tests.support.apps import app_with
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.fake_stripe_state import Wire
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, stripe_settings

TOLERANCE_SECONDS = 300
LIMIT_BYTES = 512 * 1024


pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def payment_id(stripe_app: StripeApp) -> int:
    """A payment that was paid at Stripe, of which nobody has told us."""
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    return payment_id


@pytest.fixture
def event(stripe_app: StripeApp, payment_id: int) -> Wire:  # noqa: ARG001  # it is what the event is about
    (reference,) = stripe_app.fake.intents
    return stripe_app.fake.intent_event("succeeded", reference)


@pytest.fixture
def body(event: Wire) -> bytes:
    return json.dumps(event, indent=2).encode()


def assert_not_genuine(answer: ApiResponse, rows: Rows) -> None:
    assert answer.status_code == 400
    assert answer.json["type"].endswith("/webhook-not-genuine")
    assert_nothing_written(rows)


def assert_nothing_written(rows: Rows) -> None:
    assert rows.count("webhook_events") == 0
    assert rows.one("SELECT status, version, received_minor FROM payments") == {
        "status": "pending",
        "version": 0,
        "received_minor": 0,
    }
    assert rows.count("payment_events") == 1


def assert_taken_in(answer: ApiResponse, rows: Rows, payment_id: int) -> None:
    assert answer.status_code == 200
    assert rows.count("webhook_events", "payment_id = :id", id=payment_id) == 1
    assert state_of(rows, payment_id)["status"] == "completed"


def test_a_signed_event_is_taken_in(stripe_app: StripeApp, body: bytes, payment_id: int, rows: Rows) -> None:
    assert_taken_in(send(stripe_app.app, body, stripe_app.fake.sign(body)), rows, payment_id)


def test_of_an_event_only_what_names_it_is_kept(stripe_app: StripeApp, event: Wire, body: bytes, rows: Rows) -> None:
    intent = event["data"]["object"]

    send(stripe_app.app, body, stripe_app.fake.sign(body))

    kept = rows.one("SELECT * FROM webhook_events")
    assert (kept["gateway"], kept["event_id"]) == ("stripe", event["id"])
    assert (kept["type"], kept["reference"]) == ("payment_intent.succeeded", intent["id"])
    assert intent["client_secret"] not in repr(kept)


def test_a_signature_made_with_another_secret_is_400(stripe_app: StripeApp, body: bytes, rows: Rows) -> None:
    assert_not_genuine(send(stripe_app.app, body, stripe_app.fake.sign(body, secret="whsec_of_somebody_else")), rows)


def test_no_signature_at_all_is_400(stripe_app: StripeApp, body: bytes, rows: Rows) -> None:
    assert_not_genuine(send(stripe_app.app, body, None), rows)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _good: "",
        lambda _good: "junk",
        lambda good: good.replace("v1=", "v0="),
        lambda good: good.split(",")[0],
        lambda good: good.split(",")[1],
        lambda good: good[:-1],
        lambda good: good.replace("t=", "t=x"),
        lambda good: good.replace("t=", "t=1"),
        lambda good: f"{good.split(',')[0]},v1=",
        lambda good: f"{good.split(',')[0]},v1=\u00e9",
        lambda _good: "t=,v1=",
        lambda _good: ",,,===",
        # Two times, of which others believe the last; as two lines of the header arrive, too.
        lambda good: f"{good},t=1",
        lambda good: f"{good}, t=1,v1=00",
        lambda good: f"{good},{good}",
    ],
)
def test_a_malformed_signature_is_400(
    stripe_app: StripeApp, body: bytes, rows: Rows, spoil: Callable[[str], str]
) -> None:
    assert_not_genuine(send(stripe_app.app, body, spoil(stripe_app.fake.sign(body))), rows)


def test_a_signature_older_than_its_tolerance_is_400(stripe_app: StripeApp, body: bytes, rows: Rows) -> None:
    old = stripe_app.fake.sign(body, at=time.time() - TOLERANCE_SECONDS - 1)

    assert_not_genuine(send(stripe_app.app, body, old), rows)


def test_a_signature_within_its_tolerance_is_good(
    stripe_app: StripeApp, body: bytes, payment_id: int, rows: Rows
) -> None:
    # Far enough from the limit for a slow machine.
    young = stripe_app.fake.sign(body, at=time.time() - TOLERANCE_SECONDS + 60)

    assert_taken_in(send(stripe_app.app, body, young), rows, payment_id)


def test_an_old_event_that_is_delivered_now_is_good(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    """Each delivery is signed anew: it is the signature whose age counts."""
    (reference,) = stripe_app.fake.intents
    old = stripe_app.fake.intent_event("succeeded", reference, created=int(time.time()) - 3 * 86_400)
    body = json.dumps(old).encode()

    assert_taken_in(send(stripe_app.app, body, stripe_app.fake.sign(body)), rows, payment_id)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b"succeeded", b"canceled"),
        lambda body: body + b" ",
        lambda body: json.dumps(json.loads(body), separators=(",", ":")).encode(),
        lambda _body: b"",
        lambda _body: b"\xff\xfe",
    ],
)
def test_a_signature_of_another_body_is_400(
    stripe_app: StripeApp, body: bytes, rows: Rows, change: Callable[[bytes], bytes]
) -> None:
    """It is the bytes that are signed: the same event written otherwise is another body."""
    assert_not_genuine(send(stripe_app.app, change(body), stripe_app.fake.sign(body)), rows)


@pytest.mark.parametrize("signed_with", ["whsec_new", "whsec_old", ["whsec_other", "whsec_old"]], ids=str)
def test_while_a_secret_is_replaced_both_are_good(
    stripe_app: StripeApp, database: Database, body: bytes, rows: Rows, signed_with: str | list[str]
) -> None:
    payment_id = rows.one("SELECT id FROM payments")["id"]
    settings = stripe_settings(stripe_app.fake, STRIPE_WEBHOOK_SECRET="whsec_new,whsec_old")
    with app_with(database.url, **settings) as app:
        answer = send(app, body, stripe_app.fake.sign(body, secret=signed_with))

    assert_taken_in(answer, rows, payment_id)


def test_while_a_secret_is_replaced_a_third_one_is_400(
    stripe_app: StripeApp, database: Database, body: bytes, rows: Rows
) -> None:
    settings = stripe_settings(stripe_app.fake, STRIPE_WEBHOOK_SECRET="whsec_new,whsec_old")
    with app_with(database.url, **settings) as app:
        for secret in (stripe_app.fake.webhook_secret, "whsec_new,whsec_old", ""):
            assert_not_genuine(send(app, body, stripe_app.fake.sign(body, secret=secret)), rows)


def test_without_a_secret_every_webhook_is_400(
    stripe_app: StripeApp, database: Database, body: bytes, rows: Rows
) -> None:
    with app_with(database.url, **stripe_settings(stripe_app.fake, STRIPE_WEBHOOK_SECRET="")) as app:
        # One who guesses that an empty secret is what is configured gets no further.
        for signature in (stripe_app.fake.sign(body), stripe_app.fake.sign(body, secret=""), None):
            assert_not_genuine(send(app, body, signature), rows)


def test_an_event_of_512_kib_is_read_and_a_larger_one_is_413(
    stripe_app: StripeApp, event: Wire, payment_id: int, rows: Rows
) -> None:
    def padded(length: int) -> bytes:
        bare = json.dumps({**event, "padding": ""})
        return json.dumps({**event, "padding": (length - len(bare)) * "p"}).encode()

    largest, too_large = padded(LIMIT_BYTES), padded(LIMIT_BYTES + 1)
    assert (len(largest), len(too_large)) == (LIMIT_BYTES, LIMIT_BYTES + 1)

    assert send(stripe_app.app, too_large, stripe_app.fake.sign(too_large)).status_code == 413
    assert_nothing_written(rows)
    assert_taken_in(send(stripe_app.app, largest, stripe_app.fake.sign(largest)), rows, payment_id)


def test_a_bearer_token_is_no_signature(stripe_app: StripeApp, body: bytes, rows: Rows) -> None:
    answer = stripe_app.people.admin.post("/webhooks/stripe", data=body, headers={"Content-Type": "application/json"})

    assert_not_genuine(answer, rows)


@pytest.mark.parametrize(("gateway", "status"), [("stripe", 400), ("paymongo", 400), ("manual", 404), ("other", 404)])
def test_a_gateway_that_is_not_configured_is_believed_nothing(
    app: Flask, rows: Rows, gateway: str, status: int
) -> None:
    answer = app.test_client().post(f"/api/v1/webhooks/{gateway}", data=b"{}")

    assert answer.status_code == status
    assert rows.count("webhook_events") == 0
