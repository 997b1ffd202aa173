"""Many real requests at the same moment against two worker processes. What counts is the money: the rows."""

from functools import partial

import pytest

from tests.support.people import People
from tests.support.rows import MADE_TOGETHER, Rows
from tests.support.service import Service, at_once, statuses

CLICKS = 50
RACERS = 20


pytestmark = pytest.mark.usefixtures("audited")


def test_fifty_clicks_with_a_key_each_make_one_payment(service: Service, people: People, rows: Rows) -> None:
    answers = at_once(
        [lambda key=f"click-{n}": service.pay(people.patient, 5, key) for n in range(CLICKS)]  # type: ignore[misc]
    )

    assert statuses(answers) == {201: 1, 409: CLICKS - 1}
    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)
    (winner,) = (answer.json()["data"]["payment_id"] for answer in answers if answer.status_code == 201)
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["type"].endswith("active-payment-exists")
            assert answer.json()["data"]["existing_payment_id"] == winner
            assert answer.json()["retryable"] is False


def test_fifty_requests_with_one_key_get_fifty_equal_answers(service: Service, people: People, rows: Rows) -> None:
    answers = at_once([lambda: service.pay(people.patient, 5, "one-key")] * CLICKS)

    assert statuses(answers) == {201: CLICKS}
    assert len({answer.text for answer in answers}) == 1
    assert len({(answer.headers["ETag"], answer.headers["Location"]) for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)


def test_one_key_on_two_consultations_at_once_makes_one_payment(service: Service, people: People, rows: Rows) -> None:
    for round_number in range(10):
        key = f"key-{round_number}"
        consultations = (2 * round_number + 1, 2 * round_number + 2)
        answers = at_once(
            [lambda c=c, key=key: service.pay(people.patient, c, key) for c in consultations * 2]  # type: ignore[misc]
        )

        assert statuses(answers) == {201: 2, 422: 2}
        assert {answer.text for answer in answers if answer.status_code == 201} != set()
        assert rows.count("payments") == rows.count("idempotency_keys") == round_number + 1


def test_twenty_confirms_with_twenty_transactions_complete_one(service: Service, people: People, rows: Rows) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    path = f"/payments/{payment_id}/confirm"
    answers = at_once(
        [
            lambda n=n: service.post(people.patient, path, {"transaction_id": f"TXN-{n}"})  # type: ignore[misc]
            for n in range(RACERS)
        ]
    )

    assert statuses(answers) == {200: 1, 409: RACERS - 1}
    (winner,) = (answer.json()["data"]["payment"] for answer in answers if answer.status_code == 200)
    assert winner["version"] == 1
    kept = rows.one("SELECT transaction_id, version, received_minor FROM payments")
    assert kept == {"transaction_id": winner["transaction_id"], "version": 1, "received_minor": 500_000}
    assert rows.count("payment_events", "to_status = 'completed'") == 1


def test_twenty_confirms_with_one_transaction_all_succeed_and_happen_once(
    service: Service, people: People, rows: Rows
) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    path = f"/payments/{payment_id}/confirm"
    answers = at_once([lambda: service.post(people.patient, path, {"transaction_id": "TXN-1"})] * RACERS)

    assert statuses(answers) == {200: RACERS}
    assert len({answer.text for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert rows.count("payment_events", "to_status = 'completed'") == 1
    assert rows.one("SELECT version FROM payments") == {"version": 1}


def test_one_transaction_pays_one_of_many_payments(service: Service, people: People, rows: Rows) -> None:
    payment_ids = [people.patient.pay(consultation).json["data"]["payment_id"] for consultation in range(1, 11)]
    answers = at_once(
        [
            lambda p=p: service.post(people.patient, f"/payments/{p}/confirm", {"transaction_id": "TXN-1"})  # type: ignore[misc]
            for p in payment_ids
        ]
    )

    assert statuses(answers) == {200: 1, 409: 9}
    assert {a.json()["type"].rpartition("/")[2] for a in answers if a.status_code == 409} == {
        "transaction-already-used"
    }
    assert rows.count("payments", "status = 'completed'") == rows.count("invoices", "status = 'paid'") == 1


def test_confirm_against_cancel_has_one_winner(service: Service, people: People, rows: Rows) -> None:
    for consultation in range(1, 11):
        payment_id = people.patient.pay(consultation).json["data"]["payment_id"]
        path = f"/payments/{payment_id}"
        confirm = lambda path=path: service.post(people.patient, f"{path}/confirm", {"transaction_id": path})  # noqa: E731
        cancel = lambda path=path: service.post(people.patient, f"{path}/cancel", {})  # noqa: E731
        answers = at_once([confirm, cancel] * 2)

        # A cancel has no second success; a confirm that repeats the transaction has.
        assert statuses(answers) in ({200: 1, 409: 3}, {200: 2, 409: 2})
        kept = rows.one("SELECT status, version FROM payments WHERE id = :id", id=payment_id)
        assert kept["version"] == 1
        winners = {answer.json()["data"]["status"] for answer in answers if answer.status_code == 200}
        assert winners == {kept["status"]}


def test_closing_and_ten_clicks_at_once_leave_nothing_to_be_paid(service: Service, people: People, rows: Rows) -> None:
    """In each round some clicks come before the closing and some after it; whichever was made is cancelled by then."""
    for consultation_id in range(1, 6):
        path = f"/consultations/{consultation_id}/close"
        clicks = [
            partial(service.pay, people.patient, consultation_id, f"click-{consultation_id}-{n}")
            for n in range(CLICKS // 5)
        ]
        closings = [partial(service.post, people.admin, path, {})] * 2
        answers = at_once([*clicks[:3], *closings, *clicks[3:]])

        for answer in answers[3:5]:
            # Overtaken three times it says so, and is sent again.
            assert answer.status_code == 200 or answer.json()["retryable"], answer.text
        for answer in (*answers[:3], *answers[5:]):
            problem = answer.json().get("type", "").rpartition("/")[2]
            assert answer.status_code == 201 or problem in ("active-payment-exists", "consultation-closed"), answer.text
        assert service.post(people.admin, path, {}).json()["data"]["status"] == "closed"
        made = sum(answer.status_code == 201 for answer in answers)
        assert rows.count("payments", "consultation_id = :id", id=consultation_id) == made

    assert rows.count("payments", "status <> 'cancelled'") == 0
    assert rows.count("consultations", "closed_at IS NOT NULL") == 5


def test_no_storm_was_answered_by_one_process_alone(service: Service) -> None:
    assert len(service.pids_that_served()) >= 2
