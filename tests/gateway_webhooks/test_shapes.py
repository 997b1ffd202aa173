"""Signed events in shapes that we do not know: kept once and answered 200, and told where money could hang on them."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway_webhooks import send, state_of
from tests.support.fake_stripe_state import Wire
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card

pytestmark = pytest.mark.usefixtures("audited")

# What an event is about that we can read, and that is nothing to us.
EVENT: Wire = {"id": "evt_1", "type": "customer.created", "created": 1, "data": {"object": {"id": "cus_1"}}}

# https://docs.stripe.com/api/v2/core/events: what became of the object is not said.
THIN: Wire = {
    "id": "evt_test_65R9Ijk8dKEYZcXeRWn16R9A7j1FSQ3w3TGDPLLGSM4CW0",
    "object": "v2.core.event",
    "type": "v2.core.account.updated",
    "livemode": False,
    "created": "2026-11-28T10:15:08.000Z",
    "reason": None,
    "related_object": {"id": "acct_1", "type": "v2.core.account", "url": "/v2/core/accounts/acct_1"},
}


Kept = Callable[[bytes], dict[str, Any]]


@pytest.fixture
def payment_id(stripe_app: StripeApp) -> int:
    """A payment that was paid at Stripe, of which nobody has told us."""
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    return payment_id


@pytest.fixture
def kept_of(stripe_app: StripeApp, payment_id: int, rows: Rows) -> Kept:
    """Deliver a body twice, which changes nothing: what is kept of it."""

    def deliver(body: bytes) -> dict[str, Any]:
        before = state_of(rows, payment_id)
        for _ in range(2):
            answer = send(stripe_app.app, body, stripe_app.fake.sign(body))
            assert answer.status_code == 200, answer.json
        assert state_of(rows, payment_id) == before
        return rows.one("SELECT event_id, type, reference, payment_id FROM webhook_events")

    return deliver


def assert_unread(caplog: pytest.LogCaptureFixture, *, times: int) -> None:
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum("Webhook: unreadable" in warning for warning in warnings) == times, warnings


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, {}),
        ({"data": None}, {"reference": "none"}),
        ({"data": {"object": []}}, {"reference": "none"}),
        ({"data": {"object": {"id": "\x00"}}}, {"reference": "none"}),
        ({"data": {"object": {"id": 256 * "c"}}}, {"reference": "none"}),
        ({"data": {"object": {"id": {"id": "cus_1"}}}}, {"reference": "none"}),
        ({"data": {"object": {"id": "cus_1", "livemode": "perhaps"}}}, {}),
        ({"created": "now"}, {}),
        ({"created": None}, {}),
        ({"created": 1e300}, {}),
        ({"created": float("nan")}, {}),
        ({"created": -(10**11)}, {}),
        ({"type": "x" * 256}, {"type": "unreadable"}),
        ({"type": "x\ud800"}, {"type": "unreadable"}),
        ({"type": ""}, {"type": "unreadable"}),
    ],
    ids=str,
)
def test_an_event_about_nothing_of_ours_is_kept_in_any_shape(
    kept_of: Kept, caplog: pytest.LogCaptureFixture, changes: Wire, kept: dict[str, str]
) -> None:
    found = kept_of(json.dumps({**EVENT, **changes}).encode())

    whole = {"event_id": "evt_1", "type": "customer.created", "reference": "cus_1", "payment_id": None}
    assert found == {**whole, **kept}
    assert_unread(caplog, times=0)


@pytest.mark.parametrize(
    "event_id",
    [None, "", 7, ["evt_1"], 256 * "e", "evt\x00", "evt_\ud800", "evt \u00e9", "evt\n1"],
    ids=lambda event_id: repr(event_id)[:20],
)
def test_an_id_that_cannot_be_kept_is_replaced_by_one_that_stays(kept_of: Kept, event_id: Any) -> None:
    found = kept_of(json.dumps({**EVENT, "id": event_id}).encode())

    assert found["event_id"].startswith("sha256:")
    assert found["type"] == "customer.created"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "null",
        "[]",
        '"evt_1"',
        "{}",
        '{"id": "evt_1"}',
        '{"id": "evt_1", "type": null}',
        '{"id": "evt_1", "type": ["payment_intent.succeeded"]}',
        '{"id": "evt_1", "type": "payment_intent.succeeded", "created": 1, "data": {"object": {}}}',
        '{"id": "evt_1", "type": "payment_intent.succeeded", "created": 1, "data": {"object": {"id": "pi_1"}}}',
        '{"id": "evt_1", "type": "payment_intent.payment_failed", "data": null}',
        '{"id": "evt_1", "type": "refund.created", "created": 1, "data": {"object": {"id": "re_1"}}}',
        '{"id": "evt_1", "type": "charge.refunded", "created": 1, "data": {"object": {"id": "ch_1"}}}',
        "[" * 30_000,
        '{"a":' * 90_000,
        f'{{"id": "evt_1", "created": {"9" * 5_000}}}',
    ],
    ids=lambda text: text[:90],
)
def test_what_may_be_about_money_and_cannot_be_read_is_kept_and_told(
    kept_of: Kept, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    found = kept_of(text.encode())

    assert found["payment_id"] is None
    assert_unread(caplog, times=1)


def test_a_thin_event_is_kept(kept_of: Kept, rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    found = kept_of(json.dumps(THIN).encode())

    assert found == {"event_id": THIN["id"], "type": THIN["type"], "reference": "acct_1", "payment_id": None}
    assert str(rows.one("SELECT created_at FROM webhook_events")["created_at"]).startswith("2026-11-28 10:15:08")
    assert_unread(caplog, times=0)


@pytest.mark.parametrize("related", [{}, {"related_object": None}, {"related_object": "pi_1"}], ids=str)
def test_a_thin_event_about_a_payment_is_kept_and_told(
    kept_of: Kept, stripe_app: StripeApp, caplog: pytest.LogCaptureFixture, related: Wire
) -> None:
    (reference,) = stripe_app.fake.intents
    of_intent = {"id": reference, "type": "payment_intent", "url": f"/v1/payment_intents/{reference}"}
    thin = {**THIN, "type": "v1.payment_intent.succeeded", "related_object": of_intent, **related}

    found = kept_of(json.dumps(thin).encode())

    assert found["reference"] == ("none" if related else reference)
    assert_unread(caplog, times=1)


def test_an_event_that_can_be_read_has_its_effect_whatever_its_id_is(
    stripe_app: StripeApp, payment_id: int, rows: Rows
) -> None:
    (reference,) = stripe_app.fake.intents
    event = stripe_app.fake.intent_event("succeeded", reference, event_id=256 * "e")
    for pending_webhooks in (2, 1):  # what it says of itself changes from one delivery to the next
        body = json.dumps({**event, "pending_webhooks": pending_webhooks}).encode()
        assert send(stripe_app.app, body, stripe_app.fake.sign(body)).status_code == 200

    assert state_of(rows, payment_id)["status"] == "completed"
    assert rows.count("webhook_events") == 1


def test_what_is_signed_is_kept_if_it_is_no_text(stripe_app: StripeApp, kept_of: Kept) -> None:
    body = b"\xff\xfe{}"

    assert kept_of(body)["event_id"] == f"sha256:{hashlib.sha256(body).hexdigest()}"
    signature = stripe_app.fake.sign(body)
    assert send(stripe_app.app, body + b" ", signature).status_code == 400
