"""What ``flask payments resume`` does: it looks up first, sends again only under the same key, and never twice."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from payments_app import clock
from payments_app.errors import GatewayUnavailable
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.refund import Refund
from payments_app.refunds import service
from tests.support.admissions import call_however_silent
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
)
from tests.support.waiting import PATIENCE_SECONDS

RACERS = 8


pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def payment_id(stripe_app: StripeApp) -> int:
    """A payment of 5000 by card, completed: version 1."""
    return pay_by_card(stripe_app.people, stripe_app.fake, 5)


def lose(stripe_app: StripeApp, payment_id: int, mode: Mode, amount: int = 2000, key: str = "k") -> int:
    """A refund whose answer is lost; its id."""
    stripe_app.fake.misbehave(mode)
    answer = refund(stripe_app.people.admin, payment_id, key=key, amount=amount)
    assert (answer.status_code, answer.json["data"]["refund"]["status"]) == (202, "unknown")
    refund_id: int = answer.json["data"]["refund"]["id"]
    return refund_id


def resume_one(app: Flask, refund_id: int) -> Refund | None:
    with app.app_context():
        return service.resume(refund_id, lease_seconds=60, context=AuditContext("system:test", None, clock.now()))


def grow_old(rows: Rows, hours: float) -> None:
    """As if all refunds had been asked for so long ago."""
    moment = datetime.now(UTC) - timedelta(hours=hours)
    stored = rows.moment(moment)
    rows.execute("UPDATE refunds SET created_at = :at, leased_until = :at", at=stored)


def state(rows: Rows) -> list[list[dict[str, Any]]]:
    """All that may be said of payments and refunds, but for who had them in hand last."""
    return [
        rows.all("SELECT * FROM payments ORDER BY id"),
        rows.all("SELECT id, status, reference, settled_at, decline_reason, excess_minor FROM refunds ORDER BY id"),
        rows.all("SELECT * FROM payment_events ORDER BY id"),
        rows.all("SELECT * FROM invoices ORDER BY id"),
    ]


def sent_keys(fake: FakeStripe) -> list[str | None]:
    """The gateway keys under which refunds were sent, in order."""
    return [seen.idempotency_key for seen in fake.received if (seen.method, seen.path) == ("POST", "/v1/refunds")]


def returned(fake: FakeStripe) -> list[int]:
    """Each refund of the one customer, by Stripe's account."""
    (intent_id,) = fake.intents
    return [made["amount"] for made in fake.refunds_of(intent_id)]


@pytest.mark.parametrize("mode", ["drop", "error"])
def test_what_was_made_is_found_by_its_metadata(stripe_app: StripeApp, payment_id: int, rows: Rows, mode: Mode) -> None:
    refund_id = lose(stripe_app, payment_id, mode)

    (resumed,) = resume_refunds(stripe_app.app)

    assert resumed is not None
    assert (resumed.id, resumed.status) == (refund_id, "succeeded")
    assert rows.one("SELECT status, reference FROM refunds") == {
        "status": "succeeded",
        "reference": next(iter(stripe_app.fake.refunds)),
    }
    assert rows.one("SELECT status, version, refunded_minor FROM payments") == {
        "status": "partially_refunded",
        "version": 3,
        "refunded_minor": 200_000,
    }
    trail = stripe_app.people.patient.get(f"/payments/{payment_id}/events").json["data"]
    assert [(e["event"], e["version"]) for e in trail[2:]] == [
        ("refund.requested", 2),
        ("refund.unknown", 2),
        ("refund.succeeded", 3),
    ]
    assert trail[-1]["actor"] == "system:test"
    assert (sent_keys(stripe_app.fake), returned(stripe_app.fake)) == ([f"refund-{refund_id}"], [200_000])


@pytest.mark.parametrize("mode", ["error_before", "late"])
def test_what_was_not_made_is_sent_again_under_the_same_key(
    stripe_app: StripeApp, payment_id: int, rows: Rows, mode: Mode
) -> None:
    refund_id = lose(stripe_app, payment_id, mode)

    resume_refunds(stripe_app.app)

    assert sent_keys(stripe_app.fake) == [f"refund-{refund_id}"] * 2
    # What was lost on its way may arrive even now: its key has been used.
    stripe_app.fake.apply_late()
    resume_refunds(stripe_app.app)
    assert returned(stripe_app.fake) == [200_000]
    assert rows.one("SELECT status FROM refunds") == {"status": "succeeded"}
    assert rows.one("SELECT version, refunded_minor FROM payments") == {"version": 3, "refunded_minor": 200_000}


def test_the_last_of_the_money_that_resume_finds_closes_the_books(
    stripe_app: StripeApp, payment_id: int, rows: Rows
) -> None:
    lose(stripe_app, payment_id, "drop", amount=5000)

    resume_refunds(stripe_app.app)

    assert rows.one("SELECT status, refunded_minor FROM payments") == {"status": "refunded", "refunded_minor": 500_000}
    assert rows.one("SELECT status FROM invoices") == {"status": "refunded"}
    assert stripe_app.people.patient.pay(5).status_code == 201


def test_what_is_too_old_is_looked_up_and_never_sent_again(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    lose(stripe_app, payment_id, "late")
    grow_old(rows, 23.1)
    stripe_app.fake.forget_keys()

    for _ in range(2):
        (resumed,) = resume_refunds(stripe_app.app)
        assert resumed is not None
        assert resumed.status == "unknown"
    assert (len(sent_keys(stripe_app.fake)), stripe_app.fake.count("GET", "/v1/refunds")) == (1, 2)
    assert rows.one("SELECT status, version, refund_reserved_minor, refunded_minor FROM payments") == {
        "status": "completed",
        "version": 2,
        "refund_reserved_minor": 200_000,
        "refunded_minor": 0,
    }
    assert rows.count("payment_events") == 4  # that it is still unknown is no news

    # Should it turn up after all, it is found, however old it is.
    stripe_app.fake.apply_late()
    resume_refunds(stripe_app.app)
    assert rows.one("SELECT status FROM refunds") == {"status": "succeeded"}
    assert returned(stripe_app.fake) == [200_000]


def test_what_is_nearly_too_old_is_still_sent_again(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    refund_id = lose(stripe_app, payment_id, "error_before")
    grow_old(rows, 22.9)

    resume_refunds(stripe_app.app)

    assert sent_keys(stripe_app.fake) == [f"refund-{refund_id}"] * 2
    assert rows.one("SELECT status FROM refunds") == {"status": "succeeded"}


def test_a_key_that_stripe_forgot_makes_no_second_refund(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    lose(stripe_app, payment_id, "drop")
    stripe_app.fake.forget_keys()

    resume_refunds(stripe_app.app)

    assert (len(sent_keys(stripe_app.fake)), returned(stripe_app.fake)) == (1, [200_000])
    assert rows.one("SELECT status FROM refunds") == {"status": "succeeded"}


@pytest.mark.parametrize("mode", ["drop", "error"])
def test_a_look_up_without_an_answer_sends_nothing(
    stripe_app: StripeApp, payment_id: int, rows: Rows, mode: Mode
) -> None:
    lose(stripe_app, payment_id, "drop")
    stripe_app.fake.forget_keys()  # so that sending it again would be a second refund
    before = state(rows)
    stripe_app.fake.misbehave(mode, method="GET")

    (resumed,) = resume_refunds(stripe_app.app)

    assert resumed is not None
    assert resumed.status == "unknown"
    assert state(rows) == before
    assert (len(sent_keys(stripe_app.fake)), returned(stripe_app.fake)) == (1, [200_000])
    resume_refunds(stripe_app.app)
    assert rows.one("SELECT status FROM refunds") == {"status": "succeeded"}


def test_an_account_that_does_not_know_the_payment_is_no_proof_and_gets_no_refund(
    stripe_app: StripeApp, payment_id: int, rows: Rows
) -> None:
    """As after a change of STRIPE_API_KEY to another account's: the refund may have been made in the first one."""
    lose(stripe_app, payment_id, "drop")
    stripe_app.fake.reset()

    resume_refunds(stripe_app.app)

    assert sent_keys(stripe_app.fake) == []
    assert rows.one("SELECT status FROM refunds") == {"status": "unknown"}
    assert rows.one("SELECT refund_reserved_minor FROM payments") == {"refund_reserved_minor": 200_000}


def test_a_gateway_that_is_not_configured_leaves_the_refund_open(
    stripe_app: StripeApp, payment_id: int, app: Flask, rows: Rows
) -> None:
    refund_id = lose(stripe_app, payment_id, "drop")

    with pytest.raises(GatewayUnavailable):
        resume_one(app, refund_id)  # of the app without Stripe's key

    assert rows.one("SELECT status FROM refunds") == {"status": "unknown"}
    assert rows.one("SELECT refund_reserved_minor FROM payments") == {"refund_reserved_minor": 200_000}


def test_a_refund_made_elsewhere_is_not_taken_for_ours(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    refund_id = lose(stripe_app, payment_id, "error_before")
    (intent_id,) = stripe_app.fake.intents
    elsewhere = stripe_app.fake.refund_in_dashboard(intent_id, 200_000)

    resume_refunds(stripe_app.app)

    assert returned(stripe_app.fake) == [200_000, 200_000]
    kept = rows.one("SELECT id, status, reference FROM refunds")
    assert (kept["id"], kept["status"]) == (refund_id, "succeeded")
    assert kept["reference"] != elsewhere["id"]


# Declined in the end


def test_what_is_declined_on_resume_is_failed_and_released(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    lose(stripe_app, payment_id, "error_before")
    stripe_app.fake.misbehave("refuse")

    (resumed,) = resume_refunds(stripe_app.app)

    assert resumed is not None
    assert resumed.status == "failed"
    assert rows.one("SELECT status, version, refund_reserved_minor, refunded_minor FROM payments") == {
        "status": "completed",
        "version": 3,
        "refund_reserved_minor": 0,
        "refunded_minor": 0,
    }
    told = refund(stripe_app.people.admin, payment_id, key="k", amount=2000)
    assert (told.status_code, told.headers["Idempotent-Replayed"]) == (402, "true")
    assert refund(stripe_app.people.admin, payment_id, key="anew").json["data"]["refund_amount"] == 5000
    assert returned(stripe_app.fake) == [500_000]


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_what_was_made_and_came_back_is_failed_and_released(
    stripe_app: StripeApp, payment_id: int, rows: Rows, status: str
) -> None:
    stripe_app.fake.refunds_start_as = "pending"
    lose(stripe_app, payment_id, "drop")
    (made,) = stripe_app.fake.refunds
    stripe_app.fake.settle_refund(made, status)

    resume_refunds(stripe_app.app)

    assert rows.one("SELECT status FROM refunds") == {"status": "failed"}
    assert rows.one("SELECT status, refund_reserved_minor FROM payments") == {
        "status": "completed",
        "refund_reserved_minor": 0,
    }
    assert len(sent_keys(stripe_app.fake)) == 1


def test_what_was_lost_and_is_on_its_way_is_pending_until_it_arrives(
    stripe_app: StripeApp, payment_id: int, rows: Rows
) -> None:
    stripe_app.fake.refunds_start_as = "pending"
    lose(stripe_app, payment_id, "drop")

    resume_refunds(stripe_app.app)
    assert rows.one("SELECT status FROM refunds") == {"status": "pending"}

    (made,) = stripe_app.fake.refunds
    stripe_app.fake.settle_refund(made, "succeeded")
    resume_refunds(stripe_app.app)
    assert rows.one("SELECT status FROM refunds") == {"status": "succeeded"}
    assert rows.one("SELECT version, refunded_minor FROM payments") == {"version": 3, "refunded_minor": 200_000}
    assert len(sent_keys(stripe_app.fake)) == 1


# Twice, and at once


@pytest.mark.parametrize("mode", ["drop", "error_before"])
def test_twice_in_a_row_ends_in_the_same_state(stripe_app: StripeApp, payment_id: int, rows: Rows, mode: Mode) -> None:
    refund_id = lose(stripe_app, payment_id, mode)
    resume_refunds(stripe_app.app)
    after_the_first, asked = state(rows), len(stripe_app.fake.received)

    assert resume_refunds(stripe_app.app) == []
    assert resume_one(stripe_app.app, refund_id) is None

    assert state(rows) == after_the_first
    assert len(stripe_app.fake.received) == asked


@pytest.mark.parametrize("mode", ["drop", "error_before"])
def test_many_at_once_have_one_effect(stripe_app: StripeApp, payment_id: int, rows: Rows, mode: Mode) -> None:
    refund_id = lose(stripe_app, payment_id, mode)
    gate = threading.Barrier(RACERS)

    def race(_: int) -> Refund | None:
        gate.wait(PATIENCE_SECONDS)
        return resume_one(stripe_app.app, refund_id)

    with ThreadPoolExecutor(RACERS) as pool:
        resumed = [done for done in pool.map(race, range(RACERS)) if done is not None]

    assert [done.status for done in resumed] == ["succeeded"]
    assert returned(stripe_app.fake) == [200_000]
    assert len(sent_keys(stripe_app.fake)) == (1 if mode == "drop" else 2)
    assert rows.one("SELECT version, refunded_minor FROM payments") == {"version": 3, "refunded_minor": 200_000}
    assert rows.count("payment_events", "event = 'refund.succeeded'") == 1


def test_a_refund_in_somebodys_hands_is_left_to_them(stripe_app: StripeApp, payment_id: int, rows: Rows) -> None:
    refund_id = lose(stripe_app, payment_id, "drop")
    rows.execute("UPDATE refunds SET leased_until = :at", at=a_minute_from_now(rows))
    before, asked = state(rows), len(stripe_app.fake.received)

    assert resume_refunds(stripe_app.app) == []
    assert resume_one(stripe_app.app, refund_id) is None

    assert state(rows) == before
    assert len(stripe_app.fake.received) == asked


def a_minute_from_now(rows: Rows) -> Any:
    moment = datetime.now(UTC) + timedelta(minutes=1)
    return rows.moment(moment)


@pytest.mark.parametrize("applied", [True, False])
def test_a_worker_that_was_given_up_and_comes_back_changes_nothing(
    database: Database, people: People, rows: Rows, applied: bool
) -> None:
    """Its lease ran out while it waited for an answer, so somebody else has finished, or tried to."""
    with (
        stripe_app_on(database.url, people, GATEWAY_TIMEOUT="30", REFUND_LEASE="60") as (fake, app, workers),
        ThreadPoolExecutor(1) as pool,
    ):
        payment_id = pay_by_card(workers, fake, 5)
        fake.misbehave("hang" if applied else "hang_before")
        waiting = pool.submit(refund, workers.admin, payment_id, "k", amount=2000)
        fake.wait_until_hanging()
        grow_old(rows, 0.1)

        (resumed,) = resume_refunds(app)
        fake.release()
        answer = waiting.result(PATIENCE_SECONDS)

        assert resumed is not None
        # What hangs before it is done cannot be done by another under the same key either: 409 of Stripe's.
        assert resumed.status == ("succeeded" if applied else "unknown")
        assert answer.status_code in (200, 202)
        resume_refunds(app)
        assert returned(fake) == [200_000]
        assert set(sent_keys(fake)) == {f"refund-{resumed.id}"}
        assert rows.one("SELECT status FROM refunds") == {"status": "succeeded"}
        assert rows.one("SELECT version, refunded_minor FROM payments") == {"version": 3, "refunded_minor": 200_000}


def test_all_that_are_open_are_found_by_pages_each_once(
    stripe_app: StripeApp, payment_id: int, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that stay open, and without those that are over."""
    call_however_silent(stripe_app.app)
    assert refund(stripe_app.people.admin, payment_id, amount=1).status_code == 200
    lost = [lose(stripe_app, payment_id, "late", amount=100, key=f"k{n}") for n in range(5)]
    grow_old(rows, 24)
    monkeypatch.setattr(service, "BATCH_SIZE", 2)

    resumed = resume_refunds(stripe_app.app)

    assert [found.id for found in resumed if found is not None] == lost
    assert {found.status for found in resumed if found is not None} == {"unknown"}
    assert rows.count("refunds", "status = 'unknown'") == 5
