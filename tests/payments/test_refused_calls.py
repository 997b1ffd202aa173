"""A gateway that may not be called: who is refused has changed nothing, and the same key succeeds later."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from tests.api.assertions import contents
from tests.gateway_webhooks import send, tell
from tests.support.admissions import all_places_taken, breaker_open
from tests.support.client import ApiResponse, client_of
from tests.support.commands import CommandRunner
from tests.support.databases import Database
from tests.support.paymongo_apps import wallet_shop
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card, refund

pytestmark = pytest.mark.usefixtures("audited")

Refuse = Callable[[Flask], AbstractContextManager[None]]
# How an app refuses, and what it says.
CODES: dict[Refuse, str] = {all_places_taken: "gateway-busy", breaker_open: "gateway-unavailable"}
REFUSALS = pytest.mark.parametrize("refuse", CODES, ids=["busy", "silent"])

# Prepares a request, and makes it when it is called.
Prepare = Callable[[StripeApp], Callable[[], ApiResponse]]


def keyed(stripe_app: StripeApp, who: str, path: str, **body: Any) -> Callable[[], ApiResponse]:
    return lambda: getattr(stripe_app.people, who).post(path, body, headers={"Idempotency-Key": "k"})


def checkout(stripe_app: StripeApp) -> Callable[[], ApiResponse]:
    payment_id = stripe_app.people.patient.pay(5).json["data"]["payment_id"]
    return keyed(stripe_app, "patient", f"/payments/{payment_id}/checkout")


def checkout_again(stripe_app: StripeApp) -> Callable[[], ApiResponse]:
    payment_id, _ = open_by_card(stripe_app.people, 5)
    return keyed(stripe_app, "patient", f"/payments/{payment_id}/checkout")


def confirm(stripe_app: StripeApp) -> Callable[[], ApiResponse]:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    return lambda: stripe_app.people.patient.confirm(payment_id, reference, key="k")


def cancel(stripe_app: StripeApp) -> Callable[[], ApiResponse]:
    payment_id, _ = open_by_card(stripe_app.people, 5)
    return keyed(stripe_app, "patient", f"/payments/{payment_id}/cancel")


def close(stripe_app: StripeApp) -> Callable[[], ApiResponse]:
    open_by_card(stripe_app.people, 5)
    return lambda: stripe_app.people.admin.post("/consultations/5/close")


def give_back(stripe_app: StripeApp) -> Callable[[], ApiResponse]:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    return lambda: refund(stripe_app.people.admin, payment_id, key="k", amount=2000)


def webhook(stripe_app: StripeApp) -> Callable[[], ApiResponse]:
    """Of a dispute, which does not name our payment: Stripe is asked."""
    pay_by_card(stripe_app.people, stripe_app.fake, 5)
    (intent,) = stripe_app.fake.intents
    event = stripe_app.fake.dispute_event("created", stripe_app.fake.dispute(intent))
    body = json.dumps(event).encode()
    return lambda: send(stripe_app.app, body, stripe_app.fake.sign(body))


def problem(answer: ApiResponse) -> tuple[int, str]:
    return answer.status_code, answer.json["type"].rpartition("/")[2]


@REFUSALS
@pytest.mark.parametrize("prepare", [checkout, checkout_again, confirm, cancel, close, give_back, webhook])
def test_a_refused_request_changes_nothing_and_succeeds_later(
    stripe_app: StripeApp, rows: Rows, prepare: Prepare, refuse: Refuse
) -> None:
    ask = prepare(stripe_app)
    before, asked_before = contents(rows), len(stripe_app.fake.received)

    with refuse(stripe_app.app):
        refused = [ask(), ask()]

    assert [problem(answer) for answer in refused] == [(503, CODES[refuse])] * 2
    assert all(answer.json["retryable"] and int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert (contents(rows), len(stripe_app.fake.received)) == (before, asked_before)
    answer = ask()
    assert answer.status_code == 200, answer.json
    assert "Idempotent-Replayed" not in answer.headers


@REFUSALS
def test_a_refresh_returns_the_payment_as_it_is_and_leaves_the_turn_to_the_next(
    stripe_app: StripeApp, rows: Rows, refuse: Refuse
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    before = contents(rows)

    with refuse(stripe_app.app):
        as_it_is = stripe_app.people.patient.post(f"/payments/{payment_id}/refresh")

    assert (as_it_is.status_code, as_it_is.json["data"]["status"]) == (200, "pending")
    assert contents(rows) == before
    assert stripe_app.people.patient.post(f"/payments/{payment_id}/refresh").json["data"]["status"] == "completed"


@REFUSALS
def test_what_needs_no_call_goes_on(stripe_app: StripeApp, rows: Rows, refuse: Refuse) -> None:
    """Payments by hand, stored responses, errors of the request itself, and events that say everything."""
    patient, admin = stripe_app.people.patient, stripe_app.people.admin
    paid = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    assert refund(admin, paid, key="k", amount=2000).status_code == 200
    unpaid, reference = open_by_card(stripe_app.people, 6)
    stripe_app.fake.pay(reference)

    with refuse(stripe_app.app):
        by_hand = patient.pay(7, payment_method="bank_transfer").json["data"]["payment_id"]
        assert patient.post(f"/payments/{by_hand}/checkout").json["data"]["gateway"] == "manual"
        assert admin.confirm(by_hand, "BPI 1").status_code == 200
        returned = refund(admin, by_hand)
        assert returned.status_code == 202
        refund_id = returned.json["data"]["refund"]["id"]
        assert admin.post(f"/refunds/{refund_id}/settle", {"reference": "BPI 2"}).status_code == 200
        never_opened = patient.pay(8).json["data"]["payment_id"]
        assert patient.post(f"/payments/{never_opened}/cancel").status_code == 200
        replayed = refund(admin, paid, key="k", amount=2000)
        assert (replayed.status_code, replayed.headers["Idempotent-Replayed"]) == (200, "true")
        assert problem(refund(admin, paid, key="k", amount=1000)) == (422, "idempotency-key-reused")
        assert problem(refund(admin, paid, key="l", amount=9000)) == (422, "refund-exceeds-balance")
        assert problem(stripe_app.people.other.post(f"/payments/{unpaid}/checkout")) == (403, "forbidden")
        assert problem(patient.post(f"/payments/{paid}/checkout")) == (409, "invalid-transition")
        tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    assert rows.one("SELECT status FROM payments WHERE id = :id", id=unpaid) == {"status": "completed"}


def test_resume_and_expire_leave_what_a_silent_gateway_may_not_be_asked(stripe_app: StripeApp, rows: Rows) -> None:
    """Without a lease, so that the next run need not wait for its end."""
    commands = CommandRunner(stripe_app.app)
    unknown = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    stripe_app.fake.misbehave("drop")
    made = refund(stripe_app.people.admin, unknown)
    assert made.status_code == 202
    refund_id = made.json["data"]["refund"]["id"]
    _, reference = open_by_card(stripe_app.people, 6)
    stripe_app.fake.start_processing(reference)
    tell(stripe_app, stripe_app.fake.intent_event("processing", reference))
    overdue, _ = open_by_card(stripe_app.people, 7)
    long_ago = rows.moment(datetime.now(UTC) - timedelta(days=8))
    rows.execute("UPDATE payments SET created_at = :at WHERE id = :id", at=long_ago, id=overdue)
    before = contents(rows)

    with breaker_open(stripe_app.app):
        (resumed,) = commands.json("payments", "resume")
        (expired,) = commands.json("payments", "expire")
        assert commands.run("refunds", "give-up", refund_id, "--yes").exit_code == 2
        assert commands.run("payments", "resume", "--send-again", refund_id, "--yes").exit_code == 2

    assert resumed == {"refunds": {"open": 1}, "payments": {"followed": 0, "failed": 0, "left": 1}}
    assert expired == {"expired": 0, "paid": 0, "left": 1, "sessions_ended": 0, "refunds_lapsed": 0}
    assert contents(rows) == before
    assert commands.json("payments", "resume")[0]["refunds"] == {"succeeded": 1}
    assert commands.json("payments", "expire") == [
        {"expired": 1, "paid": 0, "left": 0, "sessions_ended": 0, "refunds_lapsed": 0}
    ]


def test_an_event_that_paymongo_has_to_be_asked_about_comes_again(
    database: Database, people: People, rows: Rows
) -> None:
    with wallet_shop(database.url, people) as shop:
        _, session_id = shop.open()
        shop.fake.pay(session_id)
        body = json.dumps(shop.fake.session_paid(session_id)).encode()
        before = contents(rows)

        for refuse, code in CODES.items():
            with refuse(shop.app):
                assert problem(shop.send(body, shop.fake.sign(body))) == (503, code)
                # A stranger is told nothing of that.
                assert problem(shop.send(body, None)) == (400, "webhook-not-genuine")
        assert contents(rows) == before

        assert shop.send(body, shop.fake.sign(body)).status_code == 200
    assert rows.one("SELECT status FROM payments") == {"status": "completed"}


def test_readyz_shows_a_silent_gateway_and_stays_ready(stripe_app: StripeApp) -> None:
    client = client_of(stripe_app.app)
    with all_places_taken(stripe_app.app):
        assert client.get("/readyz").json["parts"]["stripe"] == "ok"
    with breaker_open(stripe_app.app):
        answer = client.get("/readyz")

    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["parts"]["stripe"]) == ("degraded", "degraded")
    assert client.get("/readyz").json["parts"]["stripe"] == "ok"
