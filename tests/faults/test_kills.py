"""Processes killed at each step of a create, a confirm, a webhook, a refund and a resume: retried, it happened once."""

import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest
import requests

from payments_app import clock
from payments_app.payments.events import Deed
from payments_app.refunds import process
from tests.support.databases import Database
from tests.support.killed_at import Request, Resume, Step, When, kill_at
from tests.support.people import People, Person
from tests.support.rows import MADE_TOGETHER, Rows
from tests.support.service import PATIENCE_SECONDS, Service, at_once, statuses
from tests.support.stripe_apps import CardShop, card_shop, open_by_card, pay_by_card, stripe_settings

# A lease that no test outlives by waiting: where one has to end, it is ended behind the app's back.
LASTING = {"GATEWAY_TIMEOUT": "5", "REFUND_LEASE": "600"}

BEFORE, BEFORE_COMMIT, AFTER_COMMIT = When.BEFORE_THE_STATEMENT, When.BEFORE_ITS_COMMIT, When.AFTER_ITS_COMMIT

each_step_of = partial(pytest.mark.parametrize, "step", ids=str)


@pytest.fixture
def shop(database: Database, people: People) -> Iterator[CardShop]:
    with card_shop(database.url, people, **LASTING) as shop:
        yield shop


pytestmark = pytest.mark.usefixtures("audited")


def request_of(person: Person, path: str, body: dict[str, object]) -> Request:
    headers = {**person.authorization, "Content-Type": "application/json", "Idempotency-Key": "the-key"}
    return Request(path, json.dumps(body).encode(), headers)


@each_step_of([
    Step(BEFORE, "INSERT INTO payments"),
    Step(BEFORE, "INSERT INTO idempotency_keys"),  # on SQLite the last of five; on PostgreSQL the five are one
    Step(BEFORE_COMMIT, "INSERT INTO idempotency_keys"),
    Step(AFTER_COMMIT, "INSERT INTO idempotency_keys"),
])  # fmt: skip
def test_a_create_that_was_killed_is_made_once(step: Step, database: Database, people: People, rows: Rows) -> None:
    body = {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}
    kill_at(step, request_of(people.patient, "/payments", body), database.url)
    # On PostgreSQL the statement commits itself: once it has run, no commit of ours is waited for.
    committed = step.when is AFTER_COMMIT or (step.when is BEFORE_COMMIT and not rows.is_sqlite)
    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, int(committed))

    again = people.patient.pay(5, key="the-key")

    assert again.status_code == 201
    assert ("Idempotent-Replayed" in again.headers) == committed
    assert people.patient.pay(5, key="another").status_code == 409
    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)


@each_step_of([
    Step(When.ANSWERED, "GET /v1/payment_intents"),
    Step(BEFORE, "UPDATE payments"),
    Step(BEFORE_COMMIT, "UPDATE payments"),
    Step(AFTER_COMMIT, "UPDATE payments"),
])  # fmt: skip
def test_a_confirm_that_was_killed_completes_once(step: Step, shop: CardShop, database: Database, rows: Rows) -> None:
    payment_id, intent = open_by_card(shop.people, 5)
    shop.fake.pay(intent)
    asked = request_of(shop.people.patient, f"/payments/{payment_id}/confirm", {"transaction_id": intent})
    kill_at(step, asked, database.url, **stripe_settings(shop.fake, **LASTING))
    committed = step.when is AFTER_COMMIT
    assert rows.count("payments", "status = 'completed'") == rows.count("invoices", "status = 'paid'") == committed

    again = shop.people.patient.confirm(payment_id, intent, key="the-key")

    assert again.status_code == 200
    assert ("Idempotent-Replayed" in again.headers) == committed
    assert rows.one("SELECT status, version, received_minor FROM payments") == {
        "status": "completed",
        "version": 1,
        "received_minor": 500_000,
    }
    assert rows.count("payment_events", "to_status = 'completed'") == 1
    assert rows.count("idempotency_keys", "operation = 'confirm'") == 1


@each_step_of([
    Step(BEFORE, "INSERT INTO webhook_events"),
    Step(BEFORE, "UPDATE payments"),
    Step(BEFORE_COMMIT, "UPDATE payments"),
    Step(AFTER_COMMIT, "UPDATE payments"),
])  # fmt: skip
def test_a_webhook_that_was_killed_has_its_effect_once(
    step: Step, shop: CardShop, database: Database, rows: Rows
) -> None:
    _, intent = open_by_card(shop.people, 5)
    shop.fake.pay(intent)
    body = json.dumps(shop.fake.intent_event("succeeded", intent)).encode()
    told = Request("/webhooks/stripe", body, {"Stripe-Signature": shop.fake.sign(body)})
    kill_at(step, told, database.url, **stripe_settings(shop.fake, **LASTING))
    committed = step.when is AFTER_COMMIT
    assert rows.count("webhook_events") == rows.count("payments", "status = 'completed'") == committed

    for _ in range(2):  # Stripe had no answer, so it says it again
        answer = shop.people.anonymous().post(f"/api/v1{told.path}", data=body, headers=told.headers)
        assert answer.status_code == 200

    assert rows.count("webhook_events") == rows.count("payments", "status = 'completed' AND version = 1") == 1
    assert rows.count("payment_events", "to_status = 'completed'") == 1


def refund(shop: CardShop, payment_id: int, key: str = "the-key") -> int:
    path, named = f"/payments/{payment_id}/refund", {"Idempotency-Key": key}
    status: int = shop.people.admin.post(path, {"amount": 1500}, headers=named).status_code
    return status


def resume(shop: CardShop) -> int:
    """What the timer does; how many refunds it found to be looked after."""
    with shop.app.app_context():
        found = list(process.find_open(clock.now()))
        for refund_id in found:
            process.resume(refund_id, lease_seconds=600, deed=Deed("test", None, clock.now()))
    return len(found)


def end_leases(rows: Rows) -> None:
    rows.execute("UPDATE refunds SET leased_until = created_at")


def assert_refunded_once(shop: CardShop, rows: Rows, payment_id: int) -> None:
    kept = rows.one("SELECT status, transaction_id, refunded_minor, refund_reserved_minor, version FROM payments")
    (theirs,) = shop.fake.refunds_of(kept.pop("transaction_id"))
    assert kept == {
        "status": "partially_refunded",
        "refunded_minor": 150_000,
        "refund_reserved_minor": 0,
        "version": 3,
    }
    ours = rows.one("SELECT id, reference, status, amount_minor FROM refunds")
    assert ours == {"id": ours["id"], "reference": theirs["id"], "status": "succeeded", "amount_minor": 150_000}
    assert (theirs["amount"], theirs["metadata"]["refund_id"]) == (150_000, str(ours["id"]))
    assert rows.count("payment_events", "event = 'refund.succeeded'") == 1
    assert rows.count("idempotency_keys", "operation = 'refund'") == 1
    # And the key goes on saying so, without sending anything.
    sent = shop.fake.count("POST", "/v1/refunds")
    assert refund(shop, payment_id) == 200
    assert resume(shop) == 0
    assert shop.fake.count("POST", "/v1/refunds") == sent


@each_step_of([
    Step(BEFORE, "INSERT INTO refunds"),
    Step(BEFORE, "INSERT INTO idempotency_keys"),
    Step(BEFORE_COMMIT, "INSERT INTO refunds"),
])  # fmt: skip
def test_a_refund_that_was_killed_before_it_was_placed_never_was(
    step: Step, shop: CardShop, database: Database, rows: Rows
) -> None:
    payment_id = pay_by_card(shop.people, shop.fake, 5)
    asked = request_of(shop.people.admin, f"/payments/{payment_id}/refund", {"amount": 1500})
    kill_at(step, asked, database.url, **stripe_settings(shop.fake, **LASTING))
    assert rows.count("refunds") == rows.count("idempotency_keys", "operation = 'refund'") == 0
    assert rows.one("SELECT refund_reserved_minor FROM payments") == {"refund_reserved_minor": 0}
    assert shop.fake.count("POST", "/v1/refunds") == 0

    assert refund(shop, payment_id) == 200

    assert_refunded_once(shop, rows, payment_id)


@pytest.mark.parametrize(
    ("step", "returned"),
    [
        (Step(AFTER_COMMIT, "INSERT INTO refunds"), 0),
        (Step(When.ANSWERED, "POST /v1/refunds"), 1),
        (Step(BEFORE, "UPDATE refunds"), 1),
        (Step(BEFORE_COMMIT, "UPDATE refunds"), 1),
    ],
    ids=str,
)
def test_a_refund_that_was_killed_once_it_was_placed_is_finished_by_resume(
    step: Step, returned: int, *, shop: CardShop, database: Database, rows: Rows
) -> None:
    payment_id = pay_by_card(shop.people, shop.fake, 5)
    asked = request_of(shop.people.admin, f"/payments/{payment_id}/refund", {"amount": 1500})
    kill_at(step, asked, database.url, **stripe_settings(shop.fake, **LASTING))
    assert rows.one("SELECT refund_reserved_minor FROM payments") == {"refund_reserved_minor": 150_000}
    assert len(shop.fake.refunds) == returned

    # Whoever asks is told that it is open. As long as its lease lasts somebody may be at work on it.
    assert refund(shop, payment_id) == 202
    assert resume(shop) == 0
    assert shop.fake.count("POST", "/v1/refunds") == returned
    end_leases(rows)
    assert refund(shop, payment_id) == 202
    assert resume(shop) == 1

    assert shop.fake.count("POST", "/v1/refunds") == 1  # what is there already is not sent again
    assert_refunded_once(shop, rows, payment_id)


def test_a_refund_that_was_killed_once_it_was_settled_is_over(shop: CardShop, database: Database, rows: Rows) -> None:
    payment_id = pay_by_card(shop.people, shop.fake, 5)
    asked = request_of(shop.people.admin, f"/payments/{payment_id}/refund", {"amount": 1500})
    settled = Step(AFTER_COMMIT, "UPDATE refunds")
    kill_at(settled, asked, database.url, **stripe_settings(shop.fake, **LASTING))

    assert_refunded_once(shop, rows, payment_id)


# A resume changes the refund alone when it takes it in hand, and the payment when it settles it.
@each_step_of([
    Step(BEFORE_COMMIT, "UPDATE refunds"),
    Step(AFTER_COMMIT, "UPDATE refunds"),
    Step(When.ANSWERED, "GET /v1/refunds"),
    Step(When.ANSWERED, "POST /v1/refunds"),
    Step(BEFORE_COMMIT, "UPDATE payments"),
    Step(AFTER_COMMIT, "UPDATE payments"),
])  # fmt: skip
def test_a_resume_that_was_killed_is_run_again(step: Step, shop: CardShop, database: Database, rows: Rows) -> None:
    payment_id = pay_by_card(shop.people, shop.fake, 5)
    shop.fake.misbehave("error_before", should_retry=False)
    assert refund(shop, payment_id) == 202
    refund_id = rows.one("SELECT id FROM refunds WHERE status = 'unknown'")["id"]
    kill_at(step, Resume(refund_id), database.url, **stripe_settings(shop.fake, **LASTING))

    end_leases(rows)
    found = resume(shop)

    assert found == (step != Step(AFTER_COMMIT, "UPDATE payments"))  # where it was over already
    assert_refunded_once(shop, rows, payment_id)


def test_workers_killed_in_mid_storm_return_nothing_twice(shop: CardShop, database: Database, rows: Rows) -> None:
    """A real gunicorn, whose workers are all killed while refunds are on their way, and which starts others."""
    payment_id = pay_by_card(shop.people, shop.fake, 5)
    keys = [f"key-{number}" for number in range(10)]
    with Service.started(database.url, **stripe_settings(shop.fake, **LASTING)) as service:
        path = f"/payments/{payment_id}/refund"

        def ask(key: str) -> requests.Response:
            try:
                return service.post(shop.people.admin, path, {"amount": 10}, **{"Idempotency-Key": key})
            except requests.ConnectionError:  # it is dead
                return requests.Response()

        def kill() -> requests.Response:
            # Only when Stripe has applied three of them: others may have come less far.
            shop.fake.wait_until_hanging(3)
            for pid in service.pids_that_served():
                os.kill(int(pid.strip("<>")), signal.SIGKILL)
            shop.fake.behave()
            shop.fake.release()
            return requests.Response()

        shop.fake.misbehave("hang", times=None)
        at_once([*(partial(ask, key) for key in keys), kill])
        # Whoever had no answer asks again with the same key, until somebody is there to answer.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not set(statuses(answers := [ask(key) for key in keys])) <= {200, 202}:
            assert time.monotonic() < deadline, statuses(answers)

        end_leases(rows)
        resume(shop)

        assert statuses([ask(key) for key in keys]) == {200: len(keys)}
    assert rows.count("refunds", "status = 'succeeded'") == rows.count("refunds") == len(keys)
    kept = rows.one("SELECT transaction_id, refunded_minor, refund_reserved_minor FROM payments")
    assert (kept["refunded_minor"], kept["refund_reserved_minor"]) == (10_000, 0)
    assert len(shop.fake.refunds) == len(keys)
    assert shop.fake.refunded_total(kept["transaction_id"]) == 10_000
