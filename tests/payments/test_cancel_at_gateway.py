"""A payment is given up only once nobody can pay it any more: its session ends at the gateway first."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway_webhooks import state_of, tell, trail_of
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.people import People, Person
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, stripe_app_on

INTENTS = "/v1/payment_intents"


pytestmark = pytest.mark.usefixtures("audited")


def cancel(person: Person, payment_id: int, key: str | None = None, **body: object) -> ApiResponse:
    return person.post(f"/payments/{payment_id}/cancel", body, headers={"Idempotency-Key": key} if key else {})


def problem(answer: ApiResponse) -> tuple[int, str]:
    return answer.status_code, answer.json["type"].rpartition("/")[2]


def session_status(rows: Rows) -> str:
    status: str = rows.one("SELECT status FROM gateway_sessions")["status"]
    return status


@pytest.mark.parametrize("who", ["patient", "admin"])
def test_a_cancel_ends_the_session_and_then_the_payment(stripe_app: StripeApp, rows: Rows, who: str) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)

    answer = cancel(getattr(stripe_app.people, who), payment_id)

    assert answer.status_code == 200
    assert answer.json["data"]["status"] == "cancelled"
    assert answer.json["data"]["invoice"]["status"] == "void"
    assert stripe_app.fake.intents[reference]["status"] == "canceled"
    assert session_status(rows) == "cancelled"
    assert (state_of(rows, payment_id)["status"], state_of(rows, payment_id)["version"]) == ("cancelled", 1)
    assert stripe_app.people.patient.pay(5).status_code == 201


def test_a_payment_without_a_session_is_cancelled_without_asking(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = stripe_app.people.patient.pay(5).json["data"]["payment_id"]

    assert cancel(stripe_app.people.patient, payment_id).status_code == 200

    assert stripe_app.fake.received == []
    assert state_of(rows, payment_id)["status"] == "cancelled"


@pytest.mark.parametrize("who", ["patient", "admin"])
def test_a_cancel_that_comes_after_the_money_completes_the_payment(stripe_app: StripeApp, rows: Rows, who: str) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)

    answer = cancel(getattr(stripe_app.people, who), payment_id, key="k")

    assert problem(answer) == (409, "invalid-transition")
    assert answer.json["data"] == {"status": "completed"}
    paid = state_of(rows, payment_id)
    assert (paid["status"], paid["version"], paid["received_minor"]) == ("completed", 1, 500_000)
    assert paid["transaction_id"] == reference
    assert rows.one("SELECT status FROM invoices") == {"status": "paid"}
    assert session_status(rows) == "succeeded"
    assert rows.count("idempotency_keys", "key = 'k'") == 0

    # Asked again it is refused by what is known already, and the webhook about the same money brings nothing new.
    asked_before = len(stripe_app.fake.received)
    assert problem(cancel(stripe_app.people.patient, payment_id, key="k")) == (409, "invalid-transition")
    assert len(stripe_app.fake.received) == asked_before
    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))
    assert state_of(rows, payment_id) == paid


def test_money_on_its_way_cannot_be_called_back(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.start_processing(reference)

    answer = cancel(stripe_app.people.patient, payment_id)

    assert problem(answer) == (409, "invalid-transition")
    assert answer.json["data"] == {"status": "processing"}
    assert state_of(rows, payment_id)["status"] == "processing"
    assert rows.one("SELECT status FROM invoices") == {"status": "pending"}
    # Said once: the next attempt is refused without asking.
    asked_before = len(stripe_app.fake.received)
    assert problem(cancel(stripe_app.people.patient, payment_id)) == (409, "invalid-transition")
    assert len(stripe_app.fake.received) == asked_before
    assert trail_of(rows, payment_id) == ["payment.created", "payment.processing"]


@pytest.mark.parametrize("mode", ["error_before", "error", "drop"])
def test_a_silent_gateway_is_503_and_the_same_cancel_works_later(stripe_app: StripeApp, rows: Rows, mode: Any) -> None:
    """Whether the session has ended there or not: nobody has said so."""
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.misbehave(mode, path=INTENTS, times=None)
    stripe_app.fake.misbehave(mode, method="GET", path=INTENTS, times=None)
    before = state_of(rows, payment_id)

    silent = cancel(stripe_app.people.patient, payment_id, key="k")

    assert problem(silent) == (503, "gateway-unavailable")
    assert silent.json["retryable"] is True
    assert int(silent.headers["Retry-After"]) > 0
    assert state_of(rows, payment_id) == before
    assert trail_of(rows, payment_id) == ["payment.created"]
    assert session_status(rows) == "open"
    assert rows.count("idempotency_keys", "key = 'k'") == 0

    stripe_app.fake.behave()
    again = cancel(stripe_app.people.patient, payment_id, key="k")
    assert again.status_code == 200
    assert "Idempotent-Replayed" not in again.headers
    assert stripe_app.fake.intents[reference]["status"] == "canceled"
    assert trail_of(rows, payment_id) == ["payment.created", "payment.cancelled"]


def test_a_lost_answer_to_the_cancel_is_unknown_and_looked_up_when_it_is_sent_again(
    stripe_app: StripeApp, rows: Rows
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.misbehave("drop", path=f"{INTENTS}/{reference}/cancel")

    lost = cancel(stripe_app.people.patient, payment_id, key="k")

    assert problem(lost) == (503, "gateway-unavailable")
    assert (state_of(rows, payment_id)["status"], session_status(rows)) == ("pending", "open")
    # Asked no more in this request: whoever waits for it does not wait for ever.
    assert stripe_app.fake.received[-1].method == "POST"

    # By now it has ended at the gateway, which refuses to end it twice.
    assert cancel(stripe_app.people.patient, payment_id, key="k").status_code == 200
    assert (state_of(rows, payment_id)["status"], session_status(rows)) == ("cancelled", "cancelled")
    assert trail_of(rows, payment_id) == ["payment.created", "payment.cancelled"]


def test_a_session_that_is_still_open_after_a_failed_cancel_is_503(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, _ = open_by_card(stripe_app.people, 5)
    stripe_app.fake.misbehave("error_before", path=INTENTS)

    assert problem(cancel(stripe_app.people.patient, payment_id)) == (503, "gateway-unavailable")

    assert state_of(rows, payment_id)["status"] == "pending"
    assert session_status(rows) == "open"


def test_a_session_that_was_cancelled_elsewhere_is_no_obstacle(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.cancel(reference)

    assert cancel(stripe_app.people.patient, payment_id).status_code == 200
    assert state_of(rows, payment_id)["status"] == "cancelled"


def test_a_cancel_again_is_a_replay_that_asks_nobody(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, _ = open_by_card(stripe_app.people, 5)
    first = cancel(stripe_app.people.patient, payment_id, key="k")
    asked_before = len(stripe_app.fake.received)

    again = cancel(stripe_app.people.patient, payment_id, key="k")

    assert (again.status_code, again.data) == (200, first.data)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(stripe_app.fake.received) == asked_before
    assert state_of(rows, payment_id)["version"] == 1


def test_conditions_are_judged_before_a_session_is_ended(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)

    by_body = cancel(stripe_app.people.patient, payment_id, expected_version=7)
    by_header = stripe_app.people.patient.post(f"/payments/{payment_id}/cancel", headers={"If-Match": '"7"'})

    assert problem(by_body) == (409, "version-conflict")
    assert problem(by_header) == (412, "precondition-failed")
    assert problem(cancel(stripe_app.people.other, payment_id)) == (403, "forbidden")
    assert stripe_app.fake.intents[reference]["status"] == "requires_payment_method"
    assert state_of(rows, payment_id)["status"] == "pending"


def test_cancels_at_once_have_one_effect(database: Database, people: People, rows: Rows) -> None:
    """Both have ended the session, each as far as it knows, before either writes."""
    with (
        stripe_app_on(database.url, people, GATEWAY_TIMEOUT="60", REFUND_LEASE="120") as stripe_app,
        ThreadPoolExecutor(2) as pool,
    ):
        payment_id, _ = open_by_card(stripe_app.people, 5)
        stripe_app.fake.misbehave("hang", path=INTENTS, times=2)
        patients = [stripe_app.people.seen_by(stripe_app.app).patient for _ in range(2)]
        asked = [pool.submit(cancel, patient, payment_id) for patient in patients]
        stripe_app.fake.wait_until_hanging(2)
        stripe_app.fake.release()
        answers = sorted((each.result() for each in asked), key=lambda answer: answer.status_code)

    assert [answer.status_code for answer in answers] == [200, 409]
    assert problem(answers[1]) == (409, "invalid-transition")
    assert trail_of(rows, payment_id) == ["payment.created", "payment.cancelled"]


def test_a_manual_payment_with_instructions_out_is_cancelled_without_asking(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = stripe_app.people.patient.pay(5, payment_method="gcash").json["data"]["payment_id"]
    stripe_app.people.patient.post(f"/payments/{payment_id}/checkout")

    assert cancel(stripe_app.people.patient, payment_id).status_code == 200

    assert stripe_app.fake.received == []
    assert session_status(rows) == "cancelled"
