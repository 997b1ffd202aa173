"""Unknown is not failed: refunds whose outcome nobody has told us keep their money aside, and nothing is sent twice."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.apps import app_with
from tests.support.databases import Database
from tests.support.fake_gateway import Mode
from tests.support.fake_stripe import FakeStripe
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import (
    StripeApp,
    pay_by_card,
    refund,
    resume_refunds,
    stripe_app_on,
    stripe_settings,
)
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def payment_id(stripe_app: StripeApp) -> int:
    """A payment of 5000 by card, completed: version 1."""
    return pay_by_card(stripe_app.people, stripe_app.fake, 5)


def money_of(rows: Rows, payment_id: int) -> dict[str, Any]:
    return rows.one(
        "SELECT status, version, refund_reserved_minor AS reserved, refunded_minor AS refunded"
        " FROM payments WHERE id = :id",
        id=payment_id,
    )


def sent(fake: FakeStripe) -> int:
    return fake.count("POST", "/v1/refunds")


def returned(fake: FakeStripe) -> int:
    """What the one customer has got back, by Stripe's account."""
    (intent_id,) = fake.intents
    return fake.refunded_total(intent_id)


@pytest.mark.parametrize("mode", ["drop", "error", "hang", "error_before", "late"])
def test_a_lost_answer_is_unknown_and_keeps_the_money_aside(
    stripe_app: StripeApp, payment_id: int, rows: Rows, mode: Mode
) -> None:
    stripe_app.fake.misbehave(mode, times=None)

    answer = refund(stripe_app.people.admin, payment_id, key="k", amount=2000)

    assert answer.status_code == 202
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["ETag"] == '"2"'
    assert "Idempotent-Replayed" not in answer.headers
    data = answer.json["data"]
    assert (data["refund"]["status"], data["refund"]["settled_at"]) == ("unknown", None)
    assert (data["payment"]["status"], data["payment"]["refunded_amount"]) == ("completed", 0)
    assert money_of(rows, payment_id) == {"status": "completed", "version": 2, "reserved": 200_000, "refunded": 0}
    assert returned(stripe_app.fake) == (0 if mode in ("error_before", "late") else 200_000)

    # The same key again asks nobody: that is for resume to do.
    again = refund(stripe_app.people.admin, payment_id, key="k", amount=2000)
    assert again.status_code == 202
    assert again.headers["Idempotent-Replayed"] == "true"
    assert int(again.headers["Retry-After"]) > 0
    assert again.json == answer.json
    assert (sent(stripe_app.fake), rows.count("refunds")) == (1, 1)


def test_what_is_unknown_is_not_there_to_be_returned_again(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    stripe_app.fake.misbehave("drop")
    refund(stripe_app.people.admin, payment_id, amount=2000)

    too_much = refund(stripe_app.people.admin, payment_id, amount=3000.01)
    assert too_much.status_code == 422
    assert too_much.json["type"].endswith("/refund-exceeds-balance")
    assert sent(stripe_app.fake) == 1

    rest = refund(stripe_app.people.admin, payment_id)
    assert (rest.status_code, rest.json["data"]["refund_amount"]) == (200, 3000)
    assert money_of(rows, payment_id) == {
        "status": "partially_refunded",
        "version": 4,
        "reserved": 200_000,
        "refunded": 300_000,
    }
    nothing_left = refund(stripe_app.people.admin, payment_id)
    assert nothing_left.status_code == 422
    assert returned(stripe_app.fake) == 500_000


def test_a_payment_shows_what_is_unknown_and_its_trail_when_it_became_so(
    stripe_app: StripeApp, payment_id: int
) -> None:
    stripe_app.fake.misbehave("drop")
    made = refund(stripe_app.people.admin, payment_id, key="k", amount=2000).json["data"]["refund"]

    assert stripe_app.people.patient.get(f"/payments/{payment_id}").json["data"]["refunds"] == [made]
    trail = stripe_app.people.patient.get(f"/payments/{payment_id}/events").json["data"]
    # That nobody answered changes neither status nor version.
    assert [(e["event"], e["to_status"], e["version"]) for e in trail[2:]] == [
        ("refund.requested", "completed", 2),
        ("refund.unknown", "completed", 2),
    ]
    asked = stripe_app.people.admin.get("/idempotency-keys/k").json["data"]
    assert (asked["refund_id"], asked["status"], asked["first_response"]["status"]) == (made["id"], "unknown", 202)


def test_a_key_tells_the_present_outcome_once_it_is_known(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    stripe_app.fake.misbehave("drop")
    refund(stripe_app.people.admin, payment_id, key="k", amount=2000)
    resume_refunds(stripe_app.app)

    answer = refund(stripe_app.people.admin, payment_id, key="k", amount=2000)

    assert answer.status_code == 200
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert "Retry-After" not in answer.headers
    assert answer.json["data"]["refund"]["status"] == "succeeded"
    assert answer.json["data"]["payment"]["version"] == 3
    assert stripe_app.people.admin.get("/idempotency-keys/k").json["data"]["status"] == "succeeded"
    assert (sent(stripe_app.fake), rows.count("refunds"), returned(stripe_app.fake)) == (1, 1, 200_000)


def test_nobody_listens_at_the_gateway(database: Database, people: People, rows: Rows) -> None:
    with stripe_app_on(database.url, people) as stripe_app:
        payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
        stripe_app.fake.close()

        answer = refund(stripe_app.people.admin, payment_id, amount=2000)

    assert (answer.status_code, answer.json["data"]["refund"]["status"]) == (202, "unknown")
    assert money_of(rows, payment_id)["reserved"] == 200_000


def test_a_gateway_that_is_not_configured_any_more_is_not_promised_anything(
    stripe_app: StripeApp, payment_id: int, people: People, rows: Rows
) -> None:
    answer = refund(people.admin, payment_id, amount=2000)  # of the app without Stripe's key

    assert answer.status_code == 503
    assert answer.json["type"].endswith("/gateway-unavailable")
    assert rows.count("refunds") == 0
    assert money_of(rows, payment_id) == {"status": "completed", "version": 1, "reserved": 0, "refunded": 0}
    assert refund(stripe_app.people.admin, payment_id, amount=2000).status_code == 200


def test_a_key_of_ours_that_stripe_does_not_know_says_nothing_of_what_happened(
    stripe_app: StripeApp, payment_id: int, database: Database, people: People, rows: Rows
) -> None:
    with app_with(database.url, **stripe_settings(stripe_app.fake, STRIPE_API_KEY="sk_test_rotated")) as app:
        answer = refund(people.seen_by(app).admin, payment_id, amount=2000)

    assert (answer.status_code, answer.json["data"]["refund"]["status"]) == (202, "unknown")
    assert "sk_test" not in answer.text
    assert money_of(rows, payment_id)["reserved"] == 200_000
    # Once the right key is back, it is made.
    resume_refunds(stripe_app.app)
    assert (money_of(rows, payment_id)["refunded"], returned(stripe_app.fake)) == (200_000, 200_000)


# Declined


def test_a_declined_refund_releases_its_money(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    stripe_app.fake.misbehave("refuse")

    answer = refund(stripe_app.people.admin, payment_id, key="k", amount=2000)

    assert answer.status_code == 402
    assert answer.mimetype == "application/problem+json"
    assert answer.json["type"].endswith("/refund-declined")
    assert answer.json["retryable"] is False
    assert answer.json["data"]["refund_id"] == rows.one("SELECT id FROM refunds")["id"]
    assert "already been refunded" in answer.json["data"]["reason"]
    assert money_of(rows, payment_id) == {"status": "completed", "version": 3, "reserved": 0, "refunded": 0}
    assert rows.one("SELECT status, settled_at IS NOT NULL AS over FROM refunds") == {"status": "failed", "over": 1}
    trail = stripe_app.people.patient.get(f"/payments/{payment_id}/events").json["data"]
    assert [(e["event"], e["version"]) for e in trail[2:]] == [("refund.requested", 2), ("refund.failed", 3)]


def test_a_declined_refund_is_kept_under_its_key_and_another_key_tries_anew(
    stripe_app: StripeApp, payment_id: int, rows: Rows
) -> None:
    stripe_app.fake.misbehave("refuse")
    first = refund(stripe_app.people.admin, payment_id, key="k", amount=2000)

    for _ in range(2):
        again = refund(stripe_app.people.admin, payment_id, key="k", amount=2000)
        assert again.status_code == 402
        assert again.mimetype == "application/problem+json"
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.json["type"].endswith("/refund-declined")
        assert again.json["data"] == first.json["data"]
    assert (sent(stripe_app.fake), rows.count("refunds")) == (1, 1)
    assert stripe_app.people.admin.get("/idempotency-keys/k").json["data"]["status"] == "failed"

    anew = refund(stripe_app.people.admin, payment_id, key="another", amount=2000)
    assert anew.status_code == 200
    assert money_of(rows, payment_id)["refunded"] == returned(stripe_app.fake) == 200_000
    # Not even now does the first key change its mind.
    assert refund(stripe_app.people.admin, payment_id, key="k", amount=2000).status_code == 402
    assert sent(stripe_app.fake) == 2


def test_all_of_a_declined_refund_can_be_returned_later(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    stripe_app.fake.misbehave("refuse")
    refund(stripe_app.people.admin, payment_id)

    assert refund(stripe_app.people.admin, payment_id).json["data"]["refund_amount"] == 5000
    assert money_of(rows, payment_id)["status"] == "refunded"
    shown = stripe_app.people.patient.get(f"/payments/{payment_id}").json["data"]
    assert [(r["amount"], r["status"]) for r in shown["refunds"]] == [(5000, "failed"), (5000, "succeeded")]


# Accepted, and on its way


def test_a_refund_on_its_way_is_pending_until_it_arrives(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    stripe_app.fake.refunds_start_as = "pending"

    answer = refund(stripe_app.people.admin, payment_id, key="k")

    assert (answer.status_code, answer.json["data"]["refund"]["status"]) == (202, "pending")
    assert int(answer.headers["Retry-After"]) > 0
    assert money_of(rows, payment_id) == {"status": "completed", "version": 2, "reserved": 500_000, "refunded": 0}

    # It stays so for as long as Stripe says so, and leaves no trace of having been asked for.
    for _ in range(2):
        resume_refunds(stripe_app.app)
        again = refund(stripe_app.people.admin, payment_id, key="k")
        assert (again.status_code, again.json["data"]["refund"]["status"]) == (202, "pending")
        assert again.headers["Idempotent-Replayed"] == "true"
    assert (money_of(rows, payment_id)["version"], rows.count("payment_events")) == (2, 3)

    (made,) = stripe_app.fake.refunds
    stripe_app.fake.settle_refund(made, "succeeded")
    resume_refunds(stripe_app.app)
    arrived = refund(stripe_app.people.admin, payment_id, key="k")
    assert (arrived.status_code, arrived.json["data"]["refund"]["status"]) == (200, "succeeded")
    assert money_of(rows, payment_id) == {"status": "refunded", "version": 3, "reserved": 0, "refunded": 500_000}
    assert sent(stripe_app.fake) == 1


def test_a_refund_that_fails_on_its_way_releases_its_money(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    stripe_app.fake.refunds_start_as = "pending"
    refund(stripe_app.people.admin, payment_id, key="k", amount=2000)
    (made,) = stripe_app.fake.refunds
    stripe_app.fake.settle_refund(made, "failed")

    resume_refunds(stripe_app.app)

    answer = refund(stripe_app.people.admin, payment_id, key="k", amount=2000)
    assert (answer.status_code, answer.headers["Idempotent-Replayed"]) == (402, "true")
    assert answer.json["type"].endswith("/refund-declined")
    assert "expired or canceled card" in answer.json["data"]["reason"]
    assert money_of(rows, payment_id) == {"status": "completed", "version": 3, "reserved": 0, "refunded": 0}
    assert sent(stripe_app.fake) == 1


def test_silence_does_not_make_unknown_what_was_accepted(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    stripe_app.fake.refunds_start_as = "pending"
    refund(stripe_app.people.admin, payment_id, amount=2000)
    stripe_app.fake.misbehave("drop", method="GET")

    resume_refunds(stripe_app.app)

    assert rows.one("SELECT status FROM refunds") == {"status": "pending"}
    assert (sent(stripe_app.fake), rows.count("payment_events")) == (1, 3)


# At the same time


def test_a_twin_of_a_refund_that_is_being_sent_waits_for_nobody_and_sends_nothing(
    database: Database, people: People, rows: Rows
) -> None:
    with (
        stripe_app_on(database.url, people, GATEWAY_TIMEOUT="30", REFUND_LEASE="60") as (fake, app, first),
        ThreadPoolExecutor(1) as pool,
    ):
        payment_id = pay_by_card(first, fake, 5)
        fake.misbehave("hang")
        hanging = pool.submit(refund, first.admin, payment_id, "k", amount=2000)
        fake.wait_until_hanging()

        twin = refund(people.seen_by(app).admin, payment_id, key="k", amount=2000)
        too_much = refund(people.seen_by(app).admin, payment_id, amount=3000.01)
        assert resume_refunds(app) == []
        fake.release()
        answer = hanging.result(PATIENCE_SECONDS)

        assert (twin.status_code, twin.json["data"]["refund"]["status"]) == (202, "pending")
        assert twin.headers["Idempotent-Replayed"] == "true"
        assert too_much.status_code == 422
        assert (answer.status_code, answer.json["data"]["refund"]["status"]) == (200, "succeeded")
        assert (sent(fake), returned(fake), rows.count("refunds")) == (1, 200_000, 1)
        assert money_of(rows, payment_id)["refunded"] == 200_000
