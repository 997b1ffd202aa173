"""Opening a checkout: one session at the gateway and one row, however often it is asked for, and no secret kept."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from payments_app.db.base import Base
from payments_app.gateways.registry import PLACES
from tests.gateway_webhooks import state_of, tell
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.people import People, Person
from tests.support.rows import Rows
from tests.support.service import at_once, statuses
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card, stripe_app_on

INSTRUCTIONS = "Transfer the amount to account 0042 and name your consultation."
INTENTS = "/v1/payment_intents"

# For tests in which somebody hangs until the test has done something else: nobody may give up meanwhile.
PATIENT = {"GATEWAY_TIMEOUT": "60", "REFUND_LEASE": "120"}


@pytest.fixture
def patient_stripe_app(stripe_apps: Callable[..., StripeApp]) -> StripeApp:
    return stripe_apps(**PATIENT)


pytestmark = pytest.mark.usefixtures("audited")


def create(people: People, consultation_id: int = 5, **members: Any) -> int:
    payment_id: int = people.patient.pay(consultation_id, **members).json["data"]["payment_id"]
    return payment_id


def checkout(person: Person, payment_id: int, key: str | None = None) -> ApiResponse:
    headers = {"Idempotency-Key": key} if key else {}
    return person.post(f"/payments/{payment_id}/checkout", headers=headers)


def problem(answer: ApiResponse) -> tuple[int, str]:
    return answer.status_code, answer.json["type"].rpartition("/")[2]


def assert_nothing_kept(rows: Rows) -> None:
    """Nothing that anybody could pay by, or be answered with."""
    assert rows.count("gateway_sessions", "reference IS NOT NULL OR status IN ('open', 'succeeded')") == 0
    assert rows.count("idempotency_keys", "operation <> 'create'") == 0


def test_a_checkout_opens_one_intent_that_says_what_it_is_for(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people)

    answer = checkout(stripe_app.people.patient, payment_id)

    assert answer.status_code == 200
    ((reference, intent),) = stripe_app.fake.intents.items()
    assert (intent["amount"], intent["currency"]) == (500_000, "php")
    assert intent["metadata"] == {"payment_id": str(payment_id), "consultation_id": "5"}
    data = answer.json["data"]
    assert (data["gateway"], data["reference"]) == ("stripe", reference)
    assert data["client_secret"] == intent["client_secret"]
    assert "instructions" not in data
    assert data["payment"]["id"] == payment_id
    kept = rows.one("SELECT payment_id, gateway, reference, status FROM gateway_sessions")
    assert kept == {"payment_id": payment_id, "gateway": "stripe", "reference": reference, "status": "open"}


def test_opening_a_checkout_changes_neither_status_nor_version(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people)
    before = rows.one("SELECT * FROM payments")

    answer = checkout(stripe_app.people.patient, payment_id)

    assert answer.headers["ETag"] == '"0"'
    assert (answer.json["data"]["payment"]["status"], answer.json["data"]["payment"]["version"]) == ("pending", 0)
    assert rows.one("SELECT * FROM payments") == before
    assert rows.count("payment_events") == 1


@pytest.mark.parametrize("again", ["the same key", "another key"])
def test_a_checkout_again_comes_back_to_the_same_session(stripe_app: StripeApp, rows: Rows, again: str) -> None:
    payment_id = create(stripe_app.people)
    first = checkout(stripe_app.people.patient, payment_id, "the same key".replace(" ", "-"))

    second = checkout(stripe_app.people.patient, payment_id, again.replace(" ", "-"))

    assert second.status_code == 200
    assert second.json["data"] == first.json["data"]
    assert second.headers.get("Idempotent-Replayed") == ("true" if again == "the same key" else None)
    assert len(stripe_app.fake.intents) == rows.count("gateway_sessions") == 1
    assert rows.count("idempotency_keys", "operation = 'checkout'") == (1 if again == "the same key" else 2)


@pytest.mark.parametrize("keys", [("same",) * PLACES, tuple("abcd")], ids=["one key", "a key each"])
def test_checkouts_at_once_share_one_session(stripe_app: StripeApp, rows: Rows, keys: tuple[str, ...]) -> None:
    payment_id = create(stripe_app.people)
    # A client for each thread: they keep state.
    patients = [stripe_app.people.seen_by(stripe_app.app).patient for _ in keys]

    answers = at_once(
        [lambda p=p, key=key: checkout(p, payment_id, key) for p, key in zip(patients, keys, strict=True)]  # type: ignore[misc]
    )

    assert statuses(answers) == {200: len(keys)}
    assert len({answer.json["data"]["client_secret"] for answer in answers}) == 1
    assert len(stripe_app.fake.intents) == rows.count("gateway_sessions") == 1
    assert rows.count("idempotency_keys", "operation = 'checkout'") == len(set(keys))
    assert state_of(rows, payment_id)["version"] == 0


def test_of_twins_in_flight_one_is_the_replay_of_the_other(patient_stripe_app: StripeApp, rows: Rows) -> None:
    """Both are past the look at their key before either is written down."""
    stripe_app = patient_stripe_app
    payment_id, _ = open_by_card(stripe_app.people, 5)
    stripe_app.fake.misbehave("hang", method="GET", path=INTENTS, times=2)
    with ThreadPoolExecutor(2) as pool:
        patients = [stripe_app.people.seen_by(stripe_app.app).patient for _ in range(2)]
        asked = [pool.submit(checkout, patient, payment_id, "twins") for patient in patients]
        stripe_app.fake.wait_until_hanging(2)
        stripe_app.fake.release()
        answers = [each.result() for each in asked]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].data == answers[1].data
    assert rows.count("idempotency_keys", "key = 'twins'") == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 1


def test_the_key_of_another_checkout_is_refused(stripe_app: StripeApp) -> None:
    first, second = create(stripe_app.people, 5), create(stripe_app.people, 6)
    checkout(stripe_app.people.patient, first, "k")

    answer = checkout(stripe_app.people.patient, second, "k")

    assert problem(answer) == (422, "idempotency-key-reused")
    assert len(stripe_app.fake.intents) == 1


def test_the_secret_is_in_no_table_and_in_no_log(
    stripe_app: StripeApp, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "payments_app")  # as talkative as LOG_LEVEL can make it
    payment_id = create(stripe_app.people)
    secret = checkout(stripe_app.people.patient, payment_id, "k").json["data"]["client_secret"]
    assert checkout(stripe_app.people.patient, payment_id, "k").json["data"]["client_secret"] == secret

    kept = rows.one("SELECT * FROM idempotency_keys WHERE operation = 'checkout'")
    assert (kept["key"], kept["response_status"], kept["response_body"]) == ("k", 200, None)
    for table in Base.metadata.tables:
        assert secret not in repr(rows.all(f"SELECT * FROM {table}"))
    assert secret not in caplog.text
    # What became of the key can be asked, and does not tell it either.
    asked = stripe_app.people.patient.get("/idempotency-keys/k")
    assert (asked.json["data"]["payment_id"], asked.json["data"]["first_response"]) == (payment_id, None)
    assert secret not in asked.text


def test_a_manual_method_gives_instructions_and_asks_nobody(
    database: Database, people: People, stripe_app: StripeApp, rows: Rows
) -> None:
    payment_id = create(stripe_app.people, payment_method="bank_transfer")

    with stripe_app_on(database.url, people, PAYMENT_INSTRUCTIONS_BANK_TRANSFER=INSTRUCTIONS) as clinic:
        data = checkout(clinic.people.patient, payment_id).json["data"]
        assert checkout(clinic.people.patient, payment_id).json["data"] == data

    assert (data["gateway"], data["instructions"]) == ("manual", INSTRUCTIONS)
    assert "client_secret" not in data
    assert rows.count("gateway_sessions") == 1
    assert stripe_app.fake.received == []


def test_without_stripe_the_sandbox_opens_a_checkout(people: People, rows: Rows) -> None:
    payment_id = create(people)

    first, again = (checkout(people.patient, payment_id) for _ in range(2))

    assert (first.status_code, first.json["data"]["gateway"]) == (200, "sandbox")
    assert first.json["data"]["redirect_url"].startswith("http://localhost/sandbox/checkout/")
    assert again.json["data"] == first.json["data"]
    assert rows.one("SELECT payment_id, gateway FROM gateway_sessions") == {
        "payment_id": payment_id,
        "gateway": "sandbox",
    }


@pytest.mark.parametrize("who", ["other", "admin", "booking"])
def test_only_the_patient_opens_a_checkout(stripe_app: StripeApp, rows: Rows, who: str) -> None:
    payment_id = create(stripe_app.people)

    answer = checkout(getattr(stripe_app.people, who), payment_id)

    assert problem(answer) == (403, "forbidden")
    assert stripe_app.fake.received == []
    assert_nothing_kept(rows)


def test_a_checkout_of_no_payment_is_404(stripe_app: StripeApp) -> None:
    assert problem(checkout(stripe_app.people.patient, 999_999_999)) == (404, "payment-not-found")
    assert stripe_app.fake.received == []


def test_a_paid_payment_opens_no_checkout(stripe_app: StripeApp) -> None:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    asked_before = len(stripe_app.fake.received)

    answer = checkout(stripe_app.people.patient, payment_id)

    assert problem(answer) == (409, "invalid-transition")
    assert answer.json["data"] == {"status": "completed"}
    assert len(stripe_app.fake.received) == asked_before


def test_a_cancelled_payment_opens_no_checkout(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people)
    assert stripe_app.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200

    answer = checkout(stripe_app.people.patient, payment_id, "k")

    assert problem(answer) == (409, "invalid-transition")
    assert answer.json["data"] == {"status": "cancelled"}
    assert stripe_app.fake.received == []
    assert rows.count("idempotency_keys", "key = 'k'") == rows.count("gateway_sessions") == 0


def test_a_gateway_that_refuses_is_502_and_nothing_is_kept(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people)
    stripe_app.fake.misbehave("refuse", path=INTENTS)

    answer = checkout(stripe_app.people.patient, payment_id, "k")

    assert problem(answer) == (502, "gateway-refused")
    assert answer.json["retryable"] is False
    assert_nothing_kept(rows)
    assert state_of(rows, payment_id)["version"] == 0


def test_a_gateway_that_does_not_answer_is_503_and_the_same_key_works_later(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people)
    stripe_app.fake.misbehave("drop", path=INTENTS)

    lost = checkout(stripe_app.people.patient, payment_id, "k")

    assert problem(lost) == (503, "gateway-unavailable")
    assert lost.json["retryable"] is True
    assert int(lost.headers["Retry-After"]) > 0
    assert_nothing_kept(rows)

    # What was opened meanwhile is the one that it comes back to.
    again = checkout(stripe_app.people.patient, payment_id, "k")
    assert again.status_code == 200
    assert "Idempotent-Replayed" not in again.headers
    assert list(stripe_app.fake.intents) == [again.json["data"]["reference"]]
    assert rows.count("gateway_sessions") == 1


def test_a_payment_cancelled_while_the_gateway_answers_leaves_no_session_to_pay_by(
    patient_stripe_app: StripeApp, rows: Rows
) -> None:
    stripe_app = patient_stripe_app
    payment_id = create(stripe_app.people)
    stripe_app.fake.misbehave("hang", path=INTENTS)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(checkout, stripe_app.people.seen_by(stripe_app.app).patient, payment_id, "k")
        stripe_app.fake.wait_until_hanging()
        assert stripe_app.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200
        stripe_app.fake.release()
        answer = asked.result()

    assert problem(answer) == (409, "invalid-transition")
    assert answer.json["data"] == {"status": "cancelled"}
    assert [intent["status"] for intent in stripe_app.fake.intents.values()] == ["canceled"]
    assert rows.count("gateway_sessions", "status = 'open'") == 0
    assert rows.count("idempotency_keys", "key = 'k'") == 0
    assert state_of(rows, payment_id)["status"] == "cancelled"


def test_a_payment_paid_while_the_gateway_answers_stays_paid(patient_stripe_app: StripeApp, rows: Rows) -> None:
    stripe_app = patient_stripe_app
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.misbehave("hang", method="GET", path=INTENTS)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(checkout, stripe_app.people.seen_by(stripe_app.app).patient, payment_id, "k")
        stripe_app.fake.wait_until_hanging()
        stripe_app.fake.pay(reference)
        tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))
        stripe_app.fake.release()
        answer = asked.result()

    assert problem(answer) == (409, "invalid-transition")
    assert answer.json["data"] == {"status": "completed"}
    assert stripe_app.fake.intents[reference]["status"] == "succeeded"
    assert state_of(rows, payment_id)["received_minor"] == 500_000
    assert rows.one("SELECT status FROM gateway_sessions") == {"status": "succeeded"}
