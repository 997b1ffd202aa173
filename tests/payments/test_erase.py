"""Erasing a patient: nothing personal is left anywhere, what the law wants kept is, and no money is left behind."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, inspect

from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.dialects import on_postgresql
from tests.support.held_locks import held, wait_for_waiting
from tests.support.links import make_link, payer_of
from tests.support.people import People
from tests.support.raw_rows import Raw
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows

# In no word of the schema; the address has another spelling of it.
PRIVATE = "Dalisay"

TABLES = ("users", "consultations", "payments", "refunds")


@pytest.fixture
def patient_id(people: People, rows: Rows) -> int:
    """A patient with a name, a consultation that says what for, a link, and a payment that was refunded in part."""
    consultation = {
        "patient": {"email": "Dalisay@Example.com", "name": f"Maria {PRIVATE}"},
        "description": f"Therapy of {PRIVATE}",
        "reference": "BK-77",
    }
    assert people.booking.put("/consultations/77", consultation).status_code == 201
    found: int = rows.one("SELECT patient_id FROM consultations WHERE id = 77")["patient_id"]
    return found


def pay(people: People, rows: Rows) -> int:
    """The payment, made by a link, confirmed, and refunded in part."""
    paid = payer_of(people, 77).pay(77)
    assert paid.status_code == 201, paid.text
    rows.execute("UPDATE payment_links SET return_url = :url", url=f"https://clinic.example/{PRIVATE}")
    payment_id: int = paid.json["data"]["payment_id"]
    assert people.admin.confirm(payment_id, key="confirm").status_code == 200
    refund = {"amount": 10, "reason": f"{PRIVATE} asked for it"}
    refunded = people.admin.post(f"/payments/{payment_id}/refund", refund, headers={"Idempotency-Key": "refund"})
    assert refunded.status_code == 200
    return payment_id


def everything(engine: Engine) -> str:
    with engine.connect() as connection:
        tables = inspect(engine).get_table_names()
        return "\n".join(str(list(connection.exec_driver_sql(f'SELECT * FROM "{table}"'))) for table in tables)


def test_nothing_personal_is_left_in_any_table_and_the_money_is(
    commands: CommandRunner, people: People, patient_id: int, rows: Rows, engine: Engine
) -> None:
    payment_id = pay(people, rows)
    Raw(engine).session(payment_id, status="expired", description=f"For {PRIVATE}")
    money = "SELECT user_id, consultation_id, status, received_minor, refunded_minor FROM payments"
    before, invoice = rows.all(money), rows.one("SELECT * FROM invoices")
    assert PRIVATE.lower() in everything(engine).lower()

    (told,) = commands.json("users", "erase", "dalisay@example.com", "--yes")

    assert (told["id"], told["name"]) == (patient_id, "Erased patient")
    assert PRIVATE.lower() not in everything(engine).lower()
    assert (rows.all(money), rows.one("SELECT * FROM invoices")) == (before, invoice)
    consultation = rows.one("SELECT reference, closed_at FROM consultations WHERE id = 77")
    assert consultation["reference"] == "BK-77"
    assert consultation["closed_at"] is not None
    events = people.admin.get(f"/payments/{payment_id}/events").json["data"]
    assert events[-1]["event"] == "refunds.reasons_erased"
    assert rows.violations() == []
    # The stored response is gone, and the key still has its one effect.
    again = people.admin.post(
        f"/payments/{payment_id}/refund",
        {"amount": 10, "reason": f"{PRIVATE} asked for it"},
        headers={"Idempotency-Key": "refund"},
    )
    assert again.status_code == 200
    assert PRIVATE not in again.text
    assert rows.count("refunds") == 1


def test_erasing_again_changes_nothing_and_nobody_can_undo_it(
    commands: CommandRunner, people: People, patient_id: int, rows: Rows
) -> None:
    pay(people, rows)
    payer = payer_of(people, 77)
    commands.ok("users", "erase", patient_id, "--yes")
    before = [rows.all(f"SELECT * FROM {table} ORDER BY id") for table in TABLES]
    pseudonym = rows.one("SELECT email FROM users WHERE id = :id", id=patient_id)["email"]

    for name in (patient_id, pseudonym):
        commands.ok("users", "erase", name, "--yes")

    assert before == [rows.all(f"SELECT * FROM {table} ORDER BY id") for table in TABLES]
    assert payer.get("/payments").status_code == 401
    for command in (["enable", pseudonym], ["set-email", pseudonym, "new@clinic.example"]):
        assert "cannot be undone" in commands.refused("users", *command)
    # Neither registers anything for the pseudonym; the address is free for a new patient.
    by_id = people.booking.put("/consultations/78", {"patient_id": patient_id})
    assert (by_id.status_code, by_id.json["errors"]) == (422, {"patient_id": ["No such patient."]})
    assert people.booking.put("/consultations/78", {"patient_email": pseudonym}).status_code == 422
    new = {"patient": {"email": "dalisay@example.com", "name": "Maria again"}}
    assert people.booking.put("/consultations/78", new).status_code == 201
    assert rows.one("SELECT patient_id FROM consultations WHERE id = 78")["patient_id"] != patient_id


def test_while_money_is_open_nothing_is_erased(
    commands: CommandRunner, people: People, patient_id: int, rows: Rows, engine: Engine
) -> None:
    payment_id, raw = pay(people, rows), Raw(engine)
    raw.consultation(patient_id, id=79)
    unpaid_id = payer_of(people, 79).pay(79).json["data"]["payment_id"]
    refund_id = raw.refund(payment_id, amount_minor=100, status="unknown")
    dispute_id = raw.dispute(payment_id, status="needs_response")
    raw.session(payment_id)
    rows.execute("UPDATE payments SET needs_review = (1 = 1) WHERE id = :id", id=payment_id)
    before = everything(engine)

    refused = commands.refused("users", "erase", patient_id, "--yes")

    for reason in (
        "Error: Nothing was erased: ",
        f"payment {unpaid_id} is pending",
        f"payment {payment_id} needs a review",
        f"refund {refund_id} of payment {payment_id} is unknown",
        f"dispute {dispute_id} of payment {payment_id} is needs response",
        f"payment {payment_id} can still be paid at its gateway",
    ):
        assert reason in refused
    assert everything(engine) == before


def test_staff_and_strangers_are_not_erased(commands: CommandRunner, people: People) -> None:
    for staff in ("admin@example.com", "booking@example.com"):
        assert "is staff" in commands.refused("users", "erase", staff, "--yes")
    assert "No user" in commands.refused("users", "erase", "nobody@example.com", "--yes")
    commands.run("users", "erase", "patient@example.com", answer="n\n")
    assert people.patient.pay(5).status_code == 201


def test_copies_in_redis_go_too_and_a_silent_redis_is_told(
    database: Database, people: People, patient_id: int, redis_server: RedisServer, rows: Rows
) -> None:
    redis_server.client.flushall()
    with commands_on(database.url, **redis_server.settings) as commands:
        pay(people.seen_by(commands.app), rows)
        assert redis_server.client.keys("payment:idempotency:*") != []
        commands.ok("users", "erase", patient_id, "--yes")
        assert redis_server.client.keys("payment:idempotency:*") == []
    with commands_on(database.url, REDIS_URL="redis://127.0.0.1:1/0") as commands:
        result = commands.run("users", "erase", patient_id, "--yes")
        assert result.exit_code == 1
        assert "Redis did not answer" in result.stderr


LOCK_USER = "SELECT 1 FROM users WHERE id = :id FOR UPDATE"


@on_postgresql
@pytest.mark.parametrize("ends_first", ["payment", "erasure"])
def test_a_payment_of_the_same_moment_is_either_made_or_the_patient_erased(
    ends_first: str, commands: CommandRunner, people: People, engine: Engine, rows: Rows
) -> None:
    patient = people.patient
    with ThreadPoolExecutor(2) as pool:
        if ends_first == "payment":
            # An uncommitted payment that is rolled back lets the new one wait in the middle of its statement.
            first = patient.pay(5).json["data"]["payment_id"]
            assert patient.post(f"/payments/{first}/cancel").status_code == 200
            with held(engine, "UPDATE payments SET status = 'pending'"):
                paid = pool.submit(lambda: patient.pay(5))
                wait_for_waiting(rows, 1)
                erased = pool.submit(lambda: commands.run("users", "erase", patient.id, "--yes"))
                wait_for_waiting(rows, 2)
        else:
            with held(engine, LOCK_USER, id=patient.id):
                erased = pool.submit(lambda: commands.run("users", "erase", patient.id, "--yes"))
                wait_for_waiting(rows, 1)
                paid = pool.submit(lambda: patient.pay(5))
                wait_for_waiting(rows, 2)
        results = (paid.result().status_code, erased.result().exit_code)

    assert results == ((201, 2) if ends_first == "payment" else (401, 0))
    assert rows.count("payments", "status = 'pending'") == (ends_first == "payment")
    assert rows.violations() == []


@on_postgresql
def test_a_consultation_that_is_registered_at_the_same_moment_is_none_of_the_erased(
    commands: CommandRunner, people: People, engine: Engine, rows: Rows
) -> None:
    new = {"patient_id": people.patient.id, "description": PRIVATE}
    with ThreadPoolExecutor(2) as pool, held(engine, LOCK_USER, id=people.patient.id):
        erased = pool.submit(lambda: commands.run("users", "erase", people.patient.id, "--yes"))
        wait_for_waiting(rows, 1)
        put = pool.submit(lambda: people.booking.put("/consultations/99", new))
        wait_for_waiting(rows, 2)
    answer, exit_code = put.result(), erased.result().exit_code

    # Whoever got the lock first: nothing is left in a patient's consultation that was erased.
    assert exit_code == 0
    assert answer.status_code in (201, 422)
    assert rows.count("consultations", "description IS NOT NULL OR (id = 99 AND closed_at IS NULL)") == 0


def test_a_link_of_an_erased_patient_pays_nothing(commands: CommandRunner, people: People) -> None:
    payer = payer_of(people)
    commands.ok("users", "erase", people.patient.id, "--yes")

    assert payer.pay(5).status_code == 401
    assert make_link(people).status_code == 409
