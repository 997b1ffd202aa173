"""Confirming and cancelling: one effect, from the version its writer read."""

import pytest

from tests.support.client import ApiResponse
from tests.support.people import People, Person
from tests.support.rows import Rows


@pytest.fixture
def payment_id(people: People) -> int:
    paid: int = people.patient.pay(5).json["data"]["payment_id"]
    return paid


def cancel(person: Person, payment_id: int, **body: object) -> ApiResponse:
    return person.post(f"/payments/{payment_id}/cancel", body)


def test_a_confirm_completes_payment_and_invoice(people: People, payment_id: int, rows: Rows) -> None:
    answer = people.patient.confirm(payment_id, "TXN-9", receipt_url="https://receipts.example/9")

    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"1"'
    data = answer.json["data"]
    assert data["status"] == data["payment"]["status"] == "completed"
    assert data["payment"]["transaction_id"] == "TXN-9"
    assert data["payment"]["receipt_url"] == "https://receipts.example/9"
    assert data["payment"]["version"] == 1
    assert data["payment"]["completed_at"] == data["payment"]["updated_at"] == data["invoice"]["paid_at"]
    assert data["invoice"]["status"] == "paid"
    assert rows.one("SELECT received_minor FROM payments") == {"received_minor": 500_000}
    shown = people.patient.get(f"/payments/{payment_id}").json["data"]
    assert {name: shown[name] for name in data["payment"]} == data["payment"]


def test_the_trail_is_complete_and_oldest_first(people: People, payment_id: int) -> None:
    people.patient.confirm(payment_id)

    trail = people.patient.get(f"/payments/{payment_id}/events").json["data"]

    assert [(e["event"], e["from_status"], e["to_status"], e["version"]) for e in trail] == [
        ("payment.created", None, "pending", 0),
        ("payment.completed", "pending", "completed", 1),
    ]


def test_the_same_transaction_again_is_a_retry(people: People, payment_id: int, rows: Rows) -> None:
    first = people.patient.confirm(payment_id, key="a")
    again = people.patient.confirm(payment_id, key="b", expected_version=0)

    assert again.status_code == 200
    assert again.data == first.data
    assert again.headers["Idempotent-Replayed"] == "true"
    assert rows.count("payment_events") == 2
    # It had no effect, so its key is still free.
    assert rows.count("idempotency_keys", "key = 'b'") == 0


def test_another_transaction_is_refused_once_completed(people: People, payment_id: int) -> None:
    people.patient.confirm(payment_id, "TXN-1")

    answer = people.patient.confirm(payment_id, "TXN-2")

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/invalid-transition")
    assert answer.json["data"] == {"status": "completed"}
    assert answer.json["retryable"] is False


def test_a_transaction_pays_one_payment(people: People, payment_id: int, rows: Rows) -> None:
    second = people.patient.pay(6).json["data"]["payment_id"]
    people.patient.confirm(payment_id, "TXN-1")

    answer = people.patient.confirm(second, "TXN-1")

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/transaction-already-used")
    assert rows.one("SELECT status, version FROM payments WHERE id = :id", id=second) == {
        "status": "pending",
        "version": 0,
    }


def test_the_same_transaction_id_by_another_method_is_another_transaction(people: People) -> None:
    for consultation, method in ((1, "gcash"), (2, "bank_transfer")):
        made = people.patient.pay(consultation, payment_method=method).json["data"]["payment_id"]
        assert people.admin.confirm(made, "REF-1").status_code == 200


def test_staff_confirm_what_is_paid_by_hand_and_patients_cannot(people: People, rows: Rows) -> None:
    made = people.patient.pay(7, payment_method="gcash").json["data"]["payment_id"]

    refused = people.patient.confirm(made)
    assert refused.status_code == 403
    assert rows.one("SELECT version FROM payments WHERE id = :id", id=made) == {"version": 0}

    confirmed = people.admin.confirm(made)
    assert confirmed.status_code == 200
    events = people.patient.get(f"/payments/{made}/events").json["data"]
    assert events[-1]["actor"] == f"admin:{people.admin.id}"


def test_a_cancel_voids_the_invoice(people: People, payment_id: int) -> None:
    answer = cancel(people.patient, payment_id)

    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"1"'
    assert answer.json["data"]["status"] == "cancelled"
    assert answer.json["data"]["invoice"]["status"] == "void"


def test_only_a_pending_payment_can_be_cancelled(people: People, payment_id: int) -> None:
    people.patient.confirm(payment_id)

    answer = cancel(people.patient, payment_id)

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/invalid-transition")
    assert answer.json["data"] == {"status": "completed"}


def test_a_cancelled_payment_stays_cancelled(people: People, payment_id: int) -> None:
    cancel(people.patient, payment_id)

    assert people.patient.confirm(payment_id).json["data"] == {"status": "cancelled"}
    assert cancel(people.patient, payment_id).status_code == 409


@pytest.mark.parametrize("path", ["", "/events"])
def test_only_owner_and_admin_see_a_payment(people: People, payment_id: int, path: str) -> None:
    assert people.patient.get(f"/payments/{payment_id}{path}").status_code == 200
    assert people.admin.get(f"/payments/{payment_id}{path}").status_code == 200
    assert people.other.get(f"/payments/{payment_id}{path}").status_code == 403
    assert people.booking.get(f"/payments/{payment_id}{path}").status_code == 403
    assert people.patient.get(f"/payments/999999{path}").status_code == 404


@pytest.mark.parametrize("action", ["confirm", "cancel"])
def test_only_owner_and_admin_change_a_payment(people: People, payment_id: int, action: str) -> None:
    body = {"transaction_id": "TXN-1"} if action == "confirm" else {}
    path = f"/payments/{payment_id}/{action}"

    assert people.other.post(path, body).status_code == 403
    assert people.booking.post(path, body).status_code == 403
    assert people.patient.post(f"/payments/999999/{action}", body).status_code == 404
    assert people.admin.post(path, body).status_code == 200


@pytest.mark.parametrize("action", ["confirm", "cancel"])
def test_an_old_expected_version_is_a_conflict_that_tells_the_present_one(
    people: People, payment_id: int, rows: Rows, action: str
) -> None:
    body = {"transaction_id": "TXN-1"} if action == "confirm" else {}

    answer = people.patient.post(f"/payments/{payment_id}/{action}", {**body, "expected_version": 7})

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/version-conflict")
    assert answer.json["data"] == {"current_version": 0}
    assert answer.json["retryable"] is False
    assert rows.one("SELECT version FROM payments") == {"version": 0}
    assert people.patient.post(f"/payments/{payment_id}/{action}", {**body, "expected_version": 0}).status_code == 200


@pytest.mark.parametrize("if_match", ['"1"', 'W/"0"', '"x"', "junk", '"1", "2"'])
def test_an_if_match_that_does_not_match_is_412(people: People, payment_id: int, rows: Rows, if_match: str) -> None:
    answer = people.patient.post(f"/payments/{payment_id}/cancel", headers={"If-Match": if_match})

    assert answer.status_code == 412
    assert rows.one("SELECT version FROM payments") == {"version": 0}


@pytest.mark.parametrize("if_match", ['"0"', "*", '"0", "0"'])
def test_an_if_match_that_matches_goes_through(people: People, payment_id: int, if_match: str) -> None:
    assert people.patient.post(f"/payments/{payment_id}/cancel", headers={"If-Match": if_match}).status_code == 200


def test_a_soft_deleted_payment_is_gone_and_frees_its_consultation(people: People, payment_id: int, rows: Rows) -> None:
    cancel(people.patient, payment_id)
    rows.execute("UPDATE payments SET deleted_at = updated_at")

    assert people.patient.get(f"/payments/{payment_id}").status_code == 404
    assert people.patient.get("/payments").json["data"] == []
    assert people.patient.pay(5).status_code == 201
