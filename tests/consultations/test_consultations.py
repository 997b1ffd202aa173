"""Consultations: who sees them, and what the booking system may change when."""

import threading

import pytest
from sqlalchemy import Engine

from tests.support.apps import app_with
from tests.support.databases import Database
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
        "description": None,
        "starts_at": None,
        "reference": None,
        "status": "open",
        "closed_at": None,
        "registered_by": None,
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


def test_after_a_change_of_currency_no_old_figure_is_billed_in_the_new_one(
    people: People, database: Database, rows: Rows
) -> None:
    """5000 that were registered as pesos are not paid as dollars, whether they are a fee or what the patient types."""
    paid = people.patient.pay(6, key="in-pesos")
    people.booking.put("/consultations/5", {"patient_id": people.patient.id, "fee": 5000})

    with app_with(database.url, PAYMENT_CURRENCY="USD", PAYMENT_MIN_AMOUNT="10") as app:
        now = people.seen_by(app)
        for consultation in (5, 7):  # with a fee, and without one
            refused = now.patient.pay(consultation)
            assert refused.status_code == 409
            assert refused.json["type"].endswith("/consultation-currency")
            assert not refused.json["retryable"]
            assert refused.json["data"] == {"consultation_currency": "PHP", "payment_currency": "USD"}
        assert now.patient.get("/consultations/5").json["data"]["currency"] == "PHP"

        # What is paid already is that, whatever the currency; and a retry is answered as it was.
        assert now.patient.pay(6).json["type"].endswith("/active-payment-exists")
        assert now.patient.pay(6, key="in-pesos").json == paid.json

        # Registered again, it means the money that is taken now.
        again = now.booking.put("/consultations/5", {"patient_id": people.patient.id, "fee": 90})
        assert (again.json["data"]["fee"], again.json["data"]["currency"]) == (90, "USD")
        assert now.patient.pay(5, amount=90).json["data"]["payment"]["currency"] == "USD"
    assert rows.all("SELECT consultation_id, currency FROM payments ORDER BY consultation_id") == [
        {"consultation_id": 5, "currency": "USD"},
        {"consultation_id": 6, "currency": "PHP"},
    ]


def test_the_new_currency_is_taken_once_no_payment_is_active(people: People, database: Database) -> None:
    pending = people.patient.pay(5).json["data"]["payment_id"]
    body = {"patient_id": people.patient.id}

    with app_with(database.url, PAYMENT_CURRENCY="USD") as app:
        now = people.seen_by(app)
        kept = now.booking.put("/consultations/5", body)
        now.patient.post(f"/payments/{pending}/cancel")
        taken = now.booking.put("/consultations/5", body)
        paid = now.patient.pay(5)

    assert (kept.status_code, kept.json["data"]["currency"]) == (200, "PHP")
    assert (taken.status_code, taken.json["data"]["currency"]) == (200, "USD")
    assert (paid.status_code, paid.json["data"]["payment"]["currency"]) == (201, "USD")


def test_a_new_currency_and_a_new_payment_at_once_never_disagree(
    people: People, database: Database, rows: Rows
) -> None:
    """Some servers still take pesos, and the booking system already registers dollars at another one."""
    with app_with(database.url, PAYMENT_CURRENCY="USD") as app:
        now = people.seen_by(app)
        for consultation in range(1, 21):
            gate = threading.Barrier(2)

            def register(consultation: int = consultation, gate: threading.Barrier = gate) -> None:
                gate.wait()
                now.booking.put(f"/consultations/{consultation}", {"patient_id": people.patient.id})

            racer = threading.Thread(target=register)
            racer.start()
            gate.wait()
            people.patient.pay(consultation)
            racer.join()

    disagreeing = "c.id = p.consultation_id AND c.currency <> p.currency"
    assert rows.all(f"SELECT c.id FROM consultations c JOIN payments p ON {disagreeing}") == []
    assert rows.count("payments") + rows.count("consultations", "currency = 'USD'") == 20


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
