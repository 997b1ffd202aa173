"""A card payment is paid when Stripe says so, and by nobody's word: judged first, looked up next, then written."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from payments_app.gateways.stripe.client import StripeGateway
from tests.gateway_webhooks import state_of
from tests.support.apps import app_with
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.people import People, Person
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card, stripe_app_on, stripe_settings

INTENTS = "/v1/payment_intents"
UNPAID = {
    "status": "pending",
    "version": 0,
    "transaction_id": None,
    "received_minor": 0,
    "refund_reserved_minor": 0,
    "refunded_minor": 0,
    "needs_review": False,
}


@pytest.fixture(params=["patient", "admin"])
def confirming(request: pytest.FixtureRequest, stripe_app: StripeApp) -> Person:
    """Whoever confirms: staff are verified as patients are."""
    person: Person = getattr(stripe_app.people, request.param)
    return person


pytestmark = pytest.mark.usefixtures("audited")


def problem(answer: ApiResponse) -> tuple[int, str]:
    return answer.status_code, answer.json["type"].rpartition("/")[2]


def assert_unpaid(rows: Rows, payment_id: int) -> None:
    assert state_of(rows, payment_id) == UNPAID
    assert rows.count("payment_events", "payment_id = :id", id=payment_id) == 1
    assert rows.count("invoices", "payment_id = :id AND status = 'pending'", id=payment_id) == 1
    assert rows.count("idempotency_keys", "operation = 'confirm'") == 0


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        ("disabled_at = created_at", (401, "not-authenticated")),
        ("token_version = token_version + 1", (401, "not-authenticated")),
        ("role = CASE role WHEN 'admin' THEN 'patient' ELSE 'admin' END", (403, "forbidden")),
    ],
)
def test_who_ends_while_stripe_answers_confirms_nothing(
    stripe_app: StripeApp,
    confirming: Person,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    *,
    meanwhile: str,
    expected: tuple[int, str],
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    look_up = StripeGateway.look_up

    def answer_late(*arguments: Any) -> Any:
        found = look_up(*arguments)
        rows.execute(f"UPDATE users SET {meanwhile} WHERE id = :id", id=confirming.id)
        return found

    monkeypatch.setattr(StripeGateway, "look_up", answer_late)

    assert problem(confirming.confirm(payment_id, reference)) == expected
    assert_unpaid(rows, payment_id)


def test_an_intent_that_succeeded_completes_its_payment(stripe_app: StripeApp, confirming: Person, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)

    answer = confirming.confirm(payment_id, reference, receipt_url="https://receipts.example/9")

    assert answer.status_code == 200
    assert answer.json["data"]["status"] == "completed"
    assert answer.json["data"]["invoice"]["status"] == "paid"
    assert answer.json["data"]["payment"]["receipt_url"] == "https://receipts.example/9"
    paid = {"status": "completed", "version": 1, "transaction_id": reference, "received_minor": 500_000}
    assert state_of(rows, payment_id) == {**UNPAID, **paid}


def test_the_same_intent_again_is_a_replay_that_asks_nobody(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    first = stripe_app.people.patient.confirm(payment_id, reference, key="a")
    asked_before = len(stripe_app.fake.received)

    by_key = stripe_app.people.patient.confirm(payment_id, reference, key="a")
    by_intent = stripe_app.people.patient.confirm(payment_id, reference, key="b")

    for again in (by_key, by_intent):
        assert (again.status_code, again.data) == (200, first.data)
        assert again.headers["Idempotent-Replayed"] == "true"
    assert len(stripe_app.fake.received) == asked_before
    assert rows.count("payment_events", "to_status = 'completed'") == 1
    assert state_of(rows, payment_id)["version"] == 1


@pytest.mark.parametrize(
    ("at_stripe", "said"),
    [("open", "open"), ("decline", "open"), ("start_processing", "processing"), ("cancel", "cancelled")],
)
def test_an_intent_that_nobody_paid_is_402_that_says_why(
    stripe_app: StripeApp, confirming: Person, rows: Rows, at_stripe: str, said: str
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    if at_stripe != "open":
        getattr(stripe_app.fake, at_stripe)(reference)

    answer = confirming.confirm(payment_id, reference)

    assert problem(answer) == (402, "payment-not-verified")
    assert said in answer.json["detail"]
    assert "not paid" in answer.json["detail"]
    assert answer.json["retryable"] is False
    assert_unpaid(rows, payment_id)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"amount": 499_999, "amount_received": 499_999}, "amount"),
        ({"amount_received": 499_999}, "amount"),
        ({"amount_received": 0}, "amount"),
        ({"amount": 500_001, "amount_received": 500_001}, "amount"),
        ({"currency": "usd"}, "USD"),
        ({"metadata": {}}, "another payment"),
        ({"metadata": {"payment_id": "1", "consultation_id": "5"}}, "another payment"),
        ({"metadata": {"payment_id": "PAYMENT", "consultation_id": "6"}}, "another payment"),
        ({"metadata": {"payment_id": "PAYMENT"}}, "another payment"),
        ({"metadata": {"payment_id": "0PAYMENT", "consultation_id": "5"}}, "another payment"),
    ],
    ids=str,
)
def test_an_intent_that_does_not_fit_the_bill_is_402(
    stripe_app: StripeApp, rows: Rows, fields: dict[str, Any], said: str
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    if "metadata" in fields:
        metadata = {name: text.replace("PAYMENT", str(payment_id)) for name, text in fields["metadata"].items()}
        fields = {"metadata": metadata}
    stripe_app.fake.tamper(reference, **fields)

    answer = stripe_app.people.admin.confirm(payment_id, reference)

    assert problem(answer) == (402, "payment-not-verified")
    assert said in answer.json["detail"]
    assert_unpaid(rows, payment_id)


def test_another_payments_intent_pays_nothing(stripe_app: StripeApp, confirming: Person, rows: Rows) -> None:
    payment_id, _ = open_by_card(stripe_app.people, 5)
    other_id, other_reference = open_by_card(stripe_app.people, 6)
    stripe_app.fake.pay(other_reference)

    assert problem(confirming.confirm(payment_id, other_reference)) == (402, "payment-not-verified")

    assert_unpaid(rows, payment_id)
    # It is not spoilt by the attempt.
    assert confirming.confirm(other_id, other_reference).status_code == 200


def test_an_intent_that_has_paid_another_payment_pays_no_second_one(stripe_app: StripeApp, rows: Rows) -> None:
    paid_id = pay_by_card(stripe_app.people, stripe_app.fake, 6)
    payment_id, _ = open_by_card(stripe_app.people, 5)

    answer = stripe_app.people.admin.confirm(payment_id, state_of(rows, paid_id)["transaction_id"])

    assert problem(answer) == (402, "payment-not-verified")
    assert state_of(rows, payment_id) == UNPAID


@pytest.mark.parametrize(
    "transaction_id", ["TXN-1", "ch_123", "pi_", "xpi_1", "pi_../refunds", "pi_1?expand=x", "pi_1/cancel", "pi_1\u0661"]
)
def test_what_is_no_intents_id_is_402_without_asking(stripe_app: StripeApp, rows: Rows, transaction_id: str) -> None:
    payment_id, _ = open_by_card(stripe_app.people, 5)
    asked_before = len(stripe_app.fake.received)

    answer = stripe_app.people.patient.confirm(payment_id, transaction_id)

    assert problem(answer) == (402, "payment-not-verified")
    assert len(stripe_app.fake.received) == asked_before
    assert_unpaid(rows, payment_id)


def test_an_intent_that_stripe_does_not_know_is_402(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, _ = open_by_card(stripe_app.people, 5)

    assert problem(stripe_app.people.patient.confirm(payment_id, "pi_unheard_of")) == (402, "payment-not-verified")

    assert stripe_app.fake.count("GET", f"{INTENTS}/pi_unheard_of") == 1
    assert_unpaid(rows, payment_id)


@pytest.mark.parametrize("mode", ["drop", "error", "hang_before"])
def test_a_gateway_that_is_down_is_503_and_changes_nothing(stripe_app: StripeApp, rows: Rows, mode: Any) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    stripe_app.fake.misbehave(mode, method="GET", path=INTENTS, times=None)

    answer = stripe_app.people.patient.confirm(payment_id, reference, key="k")

    assert problem(answer) == (503, "gateway-unavailable")
    assert answer.json["retryable"] is True
    assert int(answer.headers["Retry-After"]) > 0
    assert_unpaid(rows, payment_id)

    stripe_app.fake.behave()
    assert stripe_app.people.patient.confirm(payment_id, reference, key="k").status_code == 200


def test_a_key_that_stripe_does_not_know_is_our_fault_and_not_the_patients(
    stripe_app: StripeApp, database: Database, rows: Rows
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    with app_with(database.url, **stripe_settings(stripe_app.fake, STRIPE_API_KEY="sk_test_revoked")) as app:
        answer = stripe_app.people.seen_by(app).patient.confirm(payment_id, reference)

    assert problem(answer) == (503, "gateway-unavailable")
    assert "sk_test_revoked" not in answer.text
    assert_unpaid(rows, payment_id)


def test_a_402_is_judged_anew_under_the_same_key(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    assert stripe_app.people.patient.confirm(payment_id, reference, key="k").status_code == 402
    stripe_app.fake.pay(reference)

    answer = stripe_app.people.patient.confirm(payment_id, reference, key="k")

    assert answer.status_code == 200
    assert "Idempotent-Replayed" not in answer.headers
    assert rows.count("idempotency_keys", "operation = 'confirm'") == 1


# The order of judgement: what needs no gateway is answered without one.


def test_a_cancelled_payment_is_409_before_the_gateway_is_asked(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.people.patient.post(f"/payments/{payment_id}/cancel")
    asked_before = len(stripe_app.fake.received)

    answer = stripe_app.people.patient.confirm(payment_id, reference)

    assert problem(answer) == (409, "invalid-transition")
    assert answer.json["data"] == {"status": "cancelled"}
    assert len(stripe_app.fake.received) == asked_before
    assert state_of(rows, payment_id)["received_minor"] == 0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"json": {"expected_version": 7}}, (409, "version-conflict")),
        ({"headers": {"If-Match": '"7"'}}, (412, "precondition-failed")),
    ],
)
def test_conditions_are_judged_before_the_gateway_is_asked(
    stripe_app: StripeApp, rows: Rows, asked: dict[str, Any], expected: tuple[int, str]
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    asked_before = len(stripe_app.fake.received)

    answer = stripe_app.people.patient.post(
        f"/payments/{payment_id}/confirm",
        {"transaction_id": reference, **asked.get("json", {})},
        headers=asked.get("headers"),
    )

    assert problem(answer) == expected
    assert len(stripe_app.fake.received) == asked_before
    assert_unpaid(rows, payment_id)


def test_a_key_used_for_something_else_is_422_before_the_gateway_is_asked(stripe_app: StripeApp) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.people.patient.pay(6, key="k")
    asked_before = len(stripe_app.fake.received)

    assert problem(stripe_app.people.patient.confirm(payment_id, reference, key="k")) == (422, "idempotency-key-reused")
    assert len(stripe_app.fake.received) == asked_before


@pytest.mark.parametrize("who", ["other", "booking"])
def test_strangers_cannot_make_us_ask_the_gateway(stripe_app: StripeApp, rows: Rows, who: str) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    asked_before = len(stripe_app.fake.received)

    assert problem(getattr(stripe_app.people, who).confirm(payment_id, reference)) == (403, "forbidden")

    assert len(stripe_app.fake.received) == asked_before
    assert_unpaid(rows, payment_id)


def test_a_manual_payment_is_confirmed_by_staff_alone(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = stripe_app.people.patient.pay(5, payment_method="gcash").json["data"]["payment_id"]

    assert problem(stripe_app.people.patient.confirm(payment_id, "GC-1")) == (403, "forbidden")
    assert_unpaid(rows, payment_id)
    assert stripe_app.people.admin.confirm(payment_id, "GC-1").status_code == 200
    assert stripe_app.fake.received == []


def test_twins_may_both_look_up_and_one_of_them_writes(database: Database, people: People, rows: Rows) -> None:
    with (
        stripe_app_on(database.url, people, GATEWAY_TIMEOUT="60", REFUND_LEASE="120") as stripe_app,
        ThreadPoolExecutor(2) as pool,
    ):
        payment_id, reference = open_by_card(stripe_app.people, 5)
        stripe_app.fake.pay(reference)
        stripe_app.fake.misbehave("hang", method="GET", path=INTENTS, times=2)
        patients = [stripe_app.people.seen_by(stripe_app.app).patient for _ in range(2)]
        asked = [pool.submit(patient.confirm, payment_id, reference, "twins") for patient in patients]
        stripe_app.fake.wait_until_hanging(2)
        stripe_app.fake.release()
        answers = [each.result() for each in asked]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].data == answers[1].data
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 1
    assert rows.count("payment_events", "to_status = 'completed'") == 1
    assert state_of(rows, payment_id)["version"] == 1
