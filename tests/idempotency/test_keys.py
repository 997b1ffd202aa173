"""One key of one user has one effect, and answers the same ever after."""

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.support.apps import app_with
from tests.support.databases import Database
from tests.support.people import People
from tests.support.rows import MADE_TOGETHER, Rows


def test_the_same_key_gives_the_first_answer_again(people: People, rows: Rows) -> None:
    first = people.patient.pay(5, key="k")
    again = people.patient.pay(5, key="k")

    assert again.status_code == 201
    assert again.data == first.data
    assert again.headers["Idempotent-Replayed"] == "true"
    for header in ("Location", "ETag", "Idempotency-Key"):
        assert again.headers[header] == first.headers[header]
    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)


def test_a_replay_is_the_first_answer_even_after_the_payment_has_moved_on(people: People) -> None:
    first = people.patient.pay(5, key="k")
    people.patient.confirm(first.json["data"]["payment_id"])

    again = people.patient.pay(5, key="k")

    assert again.data == first.data
    assert again.headers["ETag"] == '"0"'


@pytest.mark.parametrize(
    "headers",
    [{"Idempotency-Key": "k"}, {"X-Idempotency-Key": "k"}, {"Idempotency-Key": '"k"'}],
    ids=["header", "X- header", "quoted"],
)
def test_header_and_body_name_the_same_key(people: People, rows: Rows, headers: dict[str, str]) -> None:
    body = {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}
    first = people.patient.post("/payments", body, headers=headers)

    again = people.patient.post("/payments", {**body, "idempotency_key": "k"})

    assert first.headers["Idempotency-Key"] == again.headers["Idempotency-Key"] == "k"
    assert again.data == first.data
    assert rows.count("payments") == 1


def test_a_key_is_made_where_none_is_given_and_works_as_any_other(people: People, rows: Rows) -> None:
    first = people.patient.pay(5)
    made = first.headers["Idempotency-Key"]

    again = people.patient.pay(5, key=made)

    assert len(made) == 36
    assert again.data == first.data
    assert rows.count("payments") == 1


def test_the_same_request_written_otherwise_is_the_same_request(people: People) -> None:
    first = people.patient.pay(5, key="k", amount=5000)

    for amount in ("5000", "5000.00", 5000.0, 5e3):
        assert people.patient.pay(5, key="k", amount=amount).data == first.data


def test_another_users_key_is_unknown(people: People, rows: Rows) -> None:
    mine = people.patient.pay(5, key="k")
    others = people.other.pay(21, key="k")

    assert mine.status_code == others.status_code == 201
    assert mine.json["data"]["payment_id"] != others.json["data"]["payment_id"]
    assert rows.count("idempotency_keys", "key = 'k'") == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"consultation_id": 6}, "consultation_id"),
        ({"amount": 5001}, "amount"),
        ({"payment_method": "gcash"}, "payment_method"),
    ],
)
def test_a_key_used_for_another_request_is_refused_and_names_what_differs(
    people: People, rows: Rows, change: dict[str, object], field: str
) -> None:
    people.patient.pay(key="k")

    answer = people.patient.pay(**{"key": "k", **change})  # type: ignore[arg-type]  # a parametrised call

    assert answer.status_code == 422
    assert answer.json["type"].endswith("/idempotency-key-reused")
    assert list(answer.json["errors"]) == [field]
    assert rows.count("payments") == 1


def test_a_key_of_one_operation_is_not_one_of_another(people: People) -> None:
    payment_id = people.patient.pay(5, key="k").json["data"]["payment_id"]

    answer = people.patient.confirm(payment_id, key="k")

    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["operation"]


def test_a_key_of_one_payment_is_not_one_of_another(people: People) -> None:
    first = people.patient.pay(5).json["data"]["payment_id"]
    second = people.patient.pay(6).json["data"]["payment_id"]
    people.patient.post(f"/payments/{first}/cancel", headers={"Idempotency-Key": "k"})

    answer = people.patient.post(f"/payments/{second}/cancel", headers={"Idempotency-Key": "k"})

    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["payment_id"]


@pytest.mark.parametrize("action", ["confirm", "cancel"])
def test_confirm_and_cancel_replay_their_first_answer(people: People, rows: Rows, action: str) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    path = f"/payments/{payment_id}/{action}"
    body = {"transaction_id": "TXN-1"} if action == "confirm" else {}

    # What one believes of the version is no part of the request: the replay comes before it is looked at.
    first = people.patient.post(path, {**body, "expected_version": 0}, headers={"Idempotency-Key": "k"})
    again = people.patient.post(
        path, {**body, "expected_version": 0}, headers={"Idempotency-Key": "k", "If-Match": '"9"'}
    )

    assert first.status_code == again.status_code == 200
    assert again.data == first.data
    assert again.headers["Idempotent-Replayed"] == "true"
    assert rows.one("SELECT version FROM payments") == {"version": 1}
    assert rows.count("payment_events") == 2


def test_a_refused_request_leaves_its_key_free(people: People, rows: Rows) -> None:
    people.patient.pay(5, key="first")

    assert people.patient.pay(5, key="k").status_code == 409
    assert rows.count("idempotency_keys", "key = 'k'") == 0
    assert people.patient.pay(6, key="k").status_code == 201


def test_replay_comes_after_ownership_and_before_everything_else(people: People) -> None:
    people.patient.pay(5, key="k")

    assert people.patient.pay(999, key="k").status_code == 404
    assert people.patient.pay(21, key="k").status_code == 403
    # The fee was changed under a payment that has ended: the replay still stands.
    payment_id = people.patient.get("/payments").json["data"][0]["id"]
    people.patient.post(f"/payments/{payment_id}/cancel")
    people.booking.put("/consultations/5", {"patient_id": people.patient.id, "fee": 9000})
    assert people.patient.pay(5, key="k").status_code == 201


@pytest.fixture
def conflicting(app: Flask, database: Database) -> Iterator[Flask]:  # noqa: ARG001  # empties the database
    """The same database under ``IDEMPOTENCY_REPLAY=conflict``."""
    with app_with(database.url, IDEMPOTENCY_REPLAY="conflict") as other:
        yield other


def test_a_replay_can_be_a_conflict_where_the_operator_wants_it(conflicting: Flask, people: People, rows: Rows) -> None:
    people = people.seen_by(conflicting)

    first = people.patient.pay(5, key="k")
    again = people.patient.pay(5, key="k")

    payment_id = first.json["data"]["payment_id"]
    assert (first.status_code, again.status_code) == (201, 409)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json["data"] == {
        "type": "existing",
        "payment_id": payment_id,
        "existing_payment_id": payment_id,
        "status": "pending",
    }
    assert rows.count("payments") == 1


def test_such_a_conflict_tells_the_present_state(conflicting: Flask, people: People) -> None:
    people = people.seen_by(conflicting)
    payment_id = people.patient.pay(5, key="k").json["data"]["payment_id"]
    people.patient.post(f"/payments/{payment_id}/cancel")

    again = people.patient.pay(5, key="k")

    assert again.json["data"]["status"] == "cancelled"
    assert "is cancelled" in again.json["message"]


def test_such_a_conflict_tells_of_a_deleted_payment_too(conflicting: Flask, people: People, rows: Rows) -> None:
    people = people.seen_by(conflicting)
    payment_id = people.patient.pay(5, key="k").json["data"]["payment_id"]
    people.patient.post(f"/payments/{payment_id}/cancel")
    rows.execute("UPDATE payments SET deleted_at = updated_at")

    assert people.patient.pay(5, key="k").json["data"]["status"] == "cancelled"
