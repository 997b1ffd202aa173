"""Making a payment: one, with everything that belongs to it."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from tests.support.people import People
from tests.support.rows import MADE_TOGETHER, Rows


def test_a_new_payment_comes_with_invoice_tax_event_and_key(people: People, rows: Rows) -> None:
    before = datetime.now(UTC)

    answer = people.patient.pay(5, key="my-key")

    assert answer.status_code == 201
    data = answer.json["data"]
    payment_id = data["payment_id"]
    assert answer.headers["Location"] == f"/api/v1/payments/{payment_id}"
    assert answer.headers["ETag"] == '"0"'
    assert answer.headers["Idempotency-Key"] == "my-key"
    assert "Idempotent-Replayed" not in answer.headers
    assert answer.json["message"] == "Payment created successfully"
    created_at = datetime.fromisoformat(data["payment"]["created_at"])
    assert before <= created_at <= datetime.now(UTC)
    assert data["type"] == "new"
    assert data["payment"] == {
        "id": payment_id,
        "user_id": people.patient.id,
        "consultation_id": 5,
        "amount": 5000,
        "currency": "PHP",
        "payment_method": "stripe",
        "gateway": "sandbox",
        "status": "pending",
        "transaction_id": None,
        "receipt_url": None,
        "refunded_amount": 0,
        "needs_review": False,
        "version": 0,
        "created_at": data["payment"]["created_at"],
        "updated_at": data["payment"]["created_at"],
        "completed_at": None,
    }
    assert data["invoice"] == {
        "id": data["invoice"]["id"],
        "payment_id": payment_id,
        "invoice_number": f"INV-{created_at:%Y%m%d%H%M%S}-{payment_id}",
        "amount": 5000,
        "currency": "PHP",
        "status": "pending",
        "issued_at": data["payment"]["created_at"],
        "paid_at": None,
    }
    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)


def test_what_is_shown_is_what_was_answered(people: People) -> None:
    data = people.patient.pay(5).json["data"]

    answer = people.patient.get(f"/payments/{data['payment_id']}")

    shown = answer.json["data"]
    assert answer.headers["ETag"] == '"0"'
    assert {name: shown[name] for name in data["payment"]} == data["payment"]
    assert shown["invoices"] == [data["invoice"]]
    assert shown["refunds"] == []
    assert [{**record, "id": 0} for record in shown["tax_records"]] == [
        {
            "id": 0,
            "payment_id": data["payment_id"],
            "tax_type": "VAT",
            "tax_rate": 0.12,
            "tax_basis": "amount",
            "taxable_amount": 5000,
            "amount": 600,
            "status": "calculated",
        }
    ]


def test_the_event_tells_who_made_it_in_which_request(people: People) -> None:
    created = people.patient.post(
        "/payments",
        {"consultation_id": 5, "amount": 5000, "payment_method": "gcash"},
        headers={"X-Request-ID": "from-the-proxy.1"},
    )

    (event,) = people.patient.get(f"/payments/{created.json['data']['payment_id']}/events").json["data"]

    assert created.headers["X-Request-ID"] == "from-the-proxy.1"
    assert event == {
        "id": event["id"],
        "event": "payment.created",
        "from_status": None,
        "to_status": "pending",
        "version": 0,
        "actor": f"patient:{people.patient.id}",
        "request_id": "from-the-proxy.1",
        "created_at": created.json["data"]["payment"]["created_at"],
    }


@pytest.mark.parametrize(
    ("amount", "shown", "tax"),
    [
        (1000, 1000, 120),
        ("1000.00", 1000, 120),
        (1000.04, 1000.04, 120),  # 12.0005 centavos round down
        (1000.05, 1000.05, 120.01),  # 12000.6 round up
        (1e4, 10000, 1200),
        (10_000_000, 10_000_000, 1_200_000),
        ("9999999.99", 9999999.99, 1_200_000),
    ],
)
def test_amounts_are_exact_and_tax_rounds_half_up(people: People, amount: object, shown: object, tax: object) -> None:
    payment = people.patient.pay(5, amount=amount).json["data"]["payment"]

    details = people.patient.get(f"/payments/{payment['id']}").json["data"]

    assert details["amount"] == shown
    assert details["tax_records"][0]["amount"] == tax


def test_a_second_payment_is_told_of_the_first(people: People, rows: Rows) -> None:
    first = people.patient.pay(5, key="first").json["data"]

    answer = people.patient.pay(5, key="second")

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/active-payment-exists")
    assert answer.json["retryable"] is False
    assert answer.json["data"] == {
        "type": "existing",
        "payment_id": first["payment_id"],
        "existing_payment_id": first["payment_id"],
        "status": "pending",
    }
    assert "already exists" in answer.json["message"]
    assert "nothing more was charged" in answer.json["message"]
    assert rows.count("payments") == rows.count("idempotency_keys") == 1


def test_a_cancelled_payment_frees_its_consultation(people: People) -> None:
    first = people.patient.pay(5).json["data"]["payment_id"]
    people.patient.post(f"/payments/{first}/cancel")

    assert people.patient.pay(5).status_code == 201


def test_only_the_consultations_patient_pays(people: People, rows: Rows) -> None:
    assert people.other.pay(5).status_code == 403
    assert people.admin.pay(5).status_code == 403
    assert people.booking.pay(5).status_code == 403
    assert people.patient.pay(21).status_code == 403
    missing = people.patient.pay(999)
    assert missing.status_code == 404
    assert missing.json["message"] == "Consultation not found"
    assert rows.count("payments") == 0


def test_payment_methods_on_offer_can_be_paid_with(people: People) -> None:
    offered = people.patient.get("/payment-methods").json["data"]

    assert {method["code"] for method in offered} == {"stripe", "gcash", "bank_transfer", "e_wallet"}
    for consultation, method in enumerate(offered, start=1):
        made = people.patient.pay(consultation, payment_method=method["code"]).json["data"]["payment"]
        assert made["gateway"] == method["gateway"]


def test_a_method_that_is_not_on_offer_is_refused(people: People, rows: Rows) -> None:
    answer = people.patient.pay(5, payment_method="cheque")

    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["payment_method"]
    assert rows.count("payments") == 0


def test_a_connection_that_somebody_gave_back_changed_still_commits(people: People, rows: Rows, engine: Engine) -> None:
    """SQLAlchemy resets the isolation level of a connection by having the driver begin transactions again."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("SELECT 1"))

    assert people.patient.pay(5).status_code == 201
    assert rows.count("payments") == 1
