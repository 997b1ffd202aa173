"""Consultations: who sees them, and what the booking system may change when."""

import threading

import pytest
from sqlalchemy import Engine

from tests.support.people import People
from tests.support.rows import Rows
from tests.support.statements import statements_sent


def test_a_patient_sees_own_consultations_with_fee_and_active_payment(people: People) -> None:
    payment = people.patient.pay(5).json["data"]["payment"]

    answer = people.patient.get("/consultations")

    assert [shown["id"] for shown in answer.json["data"]] == list(range(1, 21))
    assert answer.json["data"][0] == {
        "id": 1,
        "patient_id": people.patient.id,
        "fee": None,
        "currency": "PHP",
        "active_payment": None,
    }
    assert answer.json["data"][4]["active_payment"] == {
        "id": payment["id"],
        "status": "pending",
        "amount": 5000,
        "version": 0,
    }


def test_an_admin_sees_everybodys_consultations(people: People) -> None:
    assert len(people.admin.get("/consultations").json["data"]) == 21
    assert people.admin.get("/consultations/21").json["data"]["patient_id"] == people.other.id


def test_the_list_goes_on_where_it_stopped(people: People) -> None:
    seen: list[int] = []
    path: str | None = "/consultations?per_page=8"
    while path:
        answer = people.patient.get(path)
        seen += [shown["id"] for shown in answer.json["data"]]
        cursor = answer.json["meta"]["next_cursor"]
        path = f"/consultations?per_page=8&cursor={cursor}" if cursor else None

    assert seen == list(range(1, 21))


@pytest.mark.parametrize(("who", "status"), [("patient", 200), ("admin", 200), ("other", 403), ("booking", 403)])
def test_only_owner_and_admin_see_a_consultation(people: People, who: str, status: int) -> None:
    assert getattr(people, who).get("/consultations/5").status_code == status


def test_a_missing_consultation_is_404(people: People) -> None:
    answer = people.patient.get("/consultations/999")

    assert answer.status_code == 404
    assert answer.json["message"] == "Consultation not found"


def test_booking_registers_by_email_and_replaces_by_id(people: People) -> None:
    new = people.booking.put("/consultations/100", {"patient_email": people.patient.email.upper(), "fee": 1500.5})
    replaced = people.booking.put("/consultations/100", {"patient_id": people.other.id})
    again = people.booking.put("/consultations/100", {"patient_id": people.other.id})

    assert (new.status_code, replaced.status_code, again.status_code) == (201, 200, 200)
    assert new.headers["Location"] == "/api/v1/consultations/100"
    assert new.json["data"]["fee"] == 1500.5
    assert new.json["data"]["patient_id"] == people.patient.id
    assert replaced.json["data"]["patient_id"] == people.other.id
    assert replaced.json["data"]["fee"] is None


@pytest.mark.parametrize("who", ["patient", "other"])
def test_patients_register_nothing(people: People, rows: Rows, who: str) -> None:
    person = getattr(people, who)

    assert person.put("/consultations/100", {"patient_id": person.id}).status_code == 403
    assert rows.count("consultations", "id = 100") == 0


@pytest.mark.parametrize(
    "body",
    [
        {"patient_email": "nobody@example.com"},
        {"patient_id": 2**40},
        {},
        {"patient_id": 1, "patient_email": "patient@example.com"},
    ],
    ids=["unknown e-mail", "unknown id", "nobody named", "named twice"],
)
def test_a_registration_names_exactly_one_known_patient(people: People, rows: Rows, body: dict[str, object]) -> None:
    answer = people.booking.put("/consultations/100", body)

    assert answer.status_code == 422
    assert rows.count("consultations", "id = 100") == 0


def test_staff_are_no_patients(people: People) -> None:
    assert people.booking.put("/consultations/100", {"patient_id": people.admin.id}).status_code == 422


def test_another_patient_is_refused_once_any_payment_exists(people: People) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    people.patient.post(f"/payments/{payment_id}/cancel")

    answer = people.booking.put("/consultations/5", {"patient_id": people.other.id})

    assert answer.status_code == 409
    assert answer.json["type"].endswith("consultation-has-payments")


def test_another_fee_is_refused_only_while_a_payment_is_active(people: People) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    body = {"patient_id": people.patient.id, "fee": 7000}

    refused = people.booking.put("/consultations/5", body)
    people.patient.post(f"/payments/{payment_id}/cancel")
    accepted = people.booking.put("/consultations/5", body)

    assert refused.status_code == 409
    assert refused.json["type"].endswith("consultation-has-payments")
    assert accepted.status_code == 200
    assert accepted.json["data"]["fee"] == 7000


def test_a_fee_is_what_must_be_paid(people: People, rows: Rows) -> None:
    people.booking.put("/consultations/5", {"patient_id": people.patient.id, "fee": 7000})

    wrong = people.patient.pay(5, amount=6999)
    right = people.patient.pay(5, amount="7000.00")

    assert (wrong.status_code, right.status_code) == (422, 201)
    assert wrong.json["errors"] == {"amount": ["The fee is 7,000.00."]}
    assert rows.count("payments") == 1


def test_a_new_fee_and_a_new_payment_at_once_never_disagree(people: People, rows: Rows) -> None:
    for consultation in range(1, 21):
        gate = threading.Barrier(2)

        def raise_fee(consultation: int = consultation, gate: threading.Barrier = gate) -> None:
            gate.wait()
            people.booking.put(f"/consultations/{consultation}", {"patient_id": people.patient.id, "fee": 7000})

        racer = threading.Thread(target=raise_fee)
        racer.start()
        gate.wait()
        people.patient.pay(consultation)
        racer.join()

    disagreeing = rows.all(
        "SELECT c.id FROM consultations c JOIN payments p ON p.consultation_id = c.id"
        " WHERE c.fee_minor IS NOT NULL AND p.amount_minor <> c.fee_minor"
    )
    assert disagreeing == []
    # Each consultation got the one or the other, or the test has shown nothing.
    assert rows.count("payments") + rows.count("consultations", "fee_minor = 700000") == 20


def test_a_page_of_consultations_is_cut_before_payments_are_joined(people: People, engine: Engine) -> None:
    with statements_sent(engine) as sent:
        people.patient.get("/consultations?per_page=3")

    (statement,) = (text for text, _ in sent if "FROM consultations" in text)
    limit, join = statement.index("LIMIT"), statement.index("JOIN payments")
    assert limit < join
