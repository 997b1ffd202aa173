"""What a booking system says of a consultation and its patient, and what it reads of what it registered."""

from typing import Any, Literal

import pytest
from argon2 import PasswordHasher

from payments_app.accounts import passwords
from tests.api.assertions import nothing_written
from tests.support.client import ApiResponse, client_of
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.people import People, Person
from tests.support.rows import Rows
from tests.support.service import at_once, statuses

MARIA = {"email": "Maria@Example.com", "name": "Maria Santos", "language": "en"}
RACERS = 6


def put(person: Person, consultation_id: int, **members: Any) -> ApiResponse:
    return person.put(f"/consultations/{consultation_id}", members)


def code(answer: ApiResponse) -> tuple[int, str]:
    return answer.status_code, answer.json["type"].rpartition("/")[2]


def test_a_patient_whom_nobody_knows_is_added(people: People, rows: Rows) -> None:
    new = put(people.booking, 100, patient=MARIA, fee=1500)
    again = put(people.booking, 101, patient={**MARIA, "email": "MARIA@example.com", "name": "M.", "language": "id"})

    assert (new.status_code, again.status_code) == (201, 201)
    assert new.json["data"]["patient_id"] == again.json["data"]["patient_id"]
    assert rows.all("SELECT email, name, role, language, password_hash FROM users WHERE email LIKE 'maria%'") == [
        {
            "email": "maria@example.com",
            "name": "Maria Santos",
            "role": "patient",
            "language": "en",
            "password_hash": passwords.NO_PASSWORD,
        }
    ]


def test_a_patient_who_is_known_stays_who_they_are(people: People, rows: Rows) -> None:
    named = {"email": people.patient.email.upper(), "name": "Somebody Else", "language": "id"}

    assert put(people.booking, 100, patient=named).json["data"]["patient_id"] == people.patient.id
    kept = rows.one("SELECT name, language FROM users WHERE id = :id", id=people.patient.id)
    assert kept == {"name": people.patient.email, "language": None}


def test_an_older_spelling_of_an_address_is_the_same_patient(people: People, rows: Rows) -> None:
    """A release that did not normalize addresses added the user: no constraint compares the two spellings."""
    rows.execute(
        "UPDATE users SET email = :old, normalized_email = NULL WHERE id = :id",
        old="jose\u0301@example.com",
        id=people.other.id,
    )

    answer = put(people.booking, 100, patient={"email": "jose\u0301@example.com", "name": "Jose"})

    assert answer.json["data"]["patient_id"] == people.other.id


def test_registrations_at_once_add_one_patient(people: People, rows: Rows) -> None:
    answers = at_once(
        [
            lambda n=n: Person(client_of(people.app), 0, "", people.booking.token).put(  # type: ignore[misc]
                f"/consultations/{100 + n}", {"patient": {**MARIA, "name": f"Maria {n}"}}
            )
            for n in range(RACERS)
        ]
    )

    assert statuses(answers) == {201: RACERS}
    assert rows.count("users", "email = 'maria@example.com'") == 1
    assert len({answer.json["data"]["patient_id"] for answer in answers}) == 1


def test_nobody_logs_in_as_a_patient_without_a_password(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the refusal takes as long as that of an unknown address: as many hashes are verified."""
    put(people.booking, 100, patient=MARIA)
    verified: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, known: str | bytes, password: str | bytes) -> Literal[True]:
            verified.append(str(known))
            return super().verify(known, password)

    monkeypatch.setattr(passwords, "_hasher", Counting(time_cost=1, memory_cost=8, parallelism=1))
    for email in ("nobody@example.com", "maria@example.com"):
        for password in ("none", "a long enough password"):
            login = people.anonymous().post("/api/login", json={"email": email, "password": password})
            assert login.status_code == 401
    assert len(verified) == 4
    assert passwords.NO_PASSWORD not in verified


def test_who_is_no_patient_cannot_be_made_one(people: People, rows: Rows) -> None:
    with nothing_written(rows):
        answer = put(people.booking, 100, patient={"email": "Admin@example.com", "name": "Joy"})

    assert answer.json["errors"] == {"patient.email": ["Belongs to a user who is not a patient."]}


def test_a_registration_says_all_and_what_it_omits_becomes_null_but_the_reference(people: People) -> None:
    whole = {
        "patient_id": people.patient.id,
        "fee": 1500,
        "description": "Check-up with Dr Reyes",
        "starts_at": "2026-03-16T10:00+08:00",
        "reference": "BK-77",
    }
    new = put(people.booking, 100, **whole)
    same = put(people.booking, 100, **whole)
    bare = put(people.booking, 100, patient_id=people.patient.id)

    assert new.json["data"] == {
        "id": 100,
        "patient_id": people.patient.id,
        "fee": 1500,
        "currency": "PHP",
        "description": "Check-up with Dr Reyes",
        "starts_at": "2026-03-16T02:00:00.000000Z",
        "reference": "BK-77",
        "status": "open",
        "closed_at": None,
        "registered_by": people.booking.id,
        "active_payment": None,
    }
    assert same.json["data"] == new.json["data"]
    assert bare.json["data"] == {**new.json["data"], "fee": None, "description": None, "starts_at": None}


def test_what_describes_it_may_change_while_it_is_paid(people: People, rows: Rows) -> None:
    put(people.booking, 100, patient_id=people.patient.id, fee=5000)
    assert people.patient.pay(100).status_code == 201

    moved = put(people.booking, 100, patient_id=people.patient.id, fee=5000, starts_at="2026-03-17T10:00Z")

    assert (moved.status_code, moved.json["data"]["starts_at"]) == (200, "2026-03-17T10:00:00.000000Z")
    assert rows.one("SELECT version FROM payments") == {"version": 0}


def test_a_reference_stays_and_is_unique(people: People, rows: Rows) -> None:
    patient = people.patient.id
    assert put(people.booking, 100, patient_id=patient).status_code == 201
    assert put(people.booking, 100, patient_id=patient, reference="BK-77").status_code == 200

    with nothing_written(rows):
        fixed = put(people.booking, 100, patient_id=patient, reference="bk-77")
        taken = put(people.booking, 5, patient_id=patient, reference="BK-77")
        taken_by_new = put(people.booking, 101, patient=MARIA, reference="BK-77")

    assert code(fixed) == (409, "reference-fixed")
    assert fixed.json["data"] == {"reference": "BK-77"}
    assert code(taken) == code(taken_by_new) == (409, "reference-taken")


def test_registrations_at_once_give_a_reference_once(people: People, rows: Rows) -> None:
    answers = at_once(
        [
            lambda n=n: Person(client_of(people.app), 0, "", people.booking.token).put(  # type: ignore[misc]
                f"/consultations/{100 + n}", {"patient_id": people.patient.id, "reference": "BK-77"}
            )
            for n in range(RACERS)
        ]
    )

    assert statuses(answers) == {201: 1, 409: RACERS - 1}
    assert {code(answer)[1] for answer in answers if answer.status_code == 409} == {"reference-taken"}
    assert rows.count("consultations", "reference = 'BK-77'") == rows.count("consultations", "id >= 100") == 1


def test_a_consultation_is_found_by_its_reference(people: People) -> None:
    put(people.booking, 100, patient_id=people.patient.id, reference="BK-77")

    for who, found in ((people.booking, [100]), (people.admin, [100]), (people.patient, [100]), (people.other, [])):
        assert [row["id"] for row in who.get("/consultations?reference=BK-77").json["data"]] == found
        assert who.get("/consultations?reference=BK-78").json["data"] == []


def test_who_registered_first_is_kept(people: People, rows: Rows) -> None:
    put(people.admin, 100, patient_id=people.patient.id)
    put(people.booking, 100, patient_id=people.patient.id, fee=1500)
    assert rows.one("SELECT registered_by FROM consultations WHERE id = 100") == {"registered_by": people.admin.id}

    # An earlier release did not keep it.
    put(people.booking, 5, patient_id=people.patient.id)
    put(people.admin, 5, patient_id=people.patient.id)
    assert rows.one("SELECT registered_by FROM consultations WHERE id = 5") == {"registered_by": people.booking.id}


def test_a_booking_system_replaces_nothing_of_another_one(people: People, rows: Rows) -> None:
    put(people.booking, 100, patient_id=people.patient.id, reference="BK-77")
    rows.execute("UPDATE users SET role = 'booking' WHERE id = :id", id=people.other.id)
    rows.execute("UPDATE consultations SET registered_by = :id WHERE id = 100", id=people.other.id)

    with nothing_written(rows):
        assert code(put(people.booking, 100, patient_id=people.patient.id, fee=1500)) == (403, "forbidden")
    assert put(people.admin, 100, patient_id=people.patient.id).status_code == 200


def test_a_booking_system_reads_what_it_registered_and_nothing_else(people: People) -> None:
    put(people.booking, 100, patient_id=people.patient.id)
    put(people.admin, 101, patient_id=people.patient.id)
    ours, others, oldest = (people.patient.pay(number).json["data"]["payment_id"] for number in (100, 101, 5))
    booking = people.booking

    assert [row["id"] for row in booking.get("/consultations").json["data"]] == [100]
    assert booking.get("/consultations/100").json["data"]["active_payment"]["id"] == ours
    assert [row["id"] for row in booking.get("/payments").json["data"]] == [ours]
    assert [row["id"] for row in booking.get("/payments?consultation_id=100").json["data"]] == [ours]
    assert booking.get("/payments?consultation_id=101").json["data"] == []
    shown = booking.get(f"/payments/{ours}")
    assert shown.json["data"] == people.patient.get(f"/payments/{ours}").json["data"]
    assert shown.headers["ETag"] == '"0"'
    assert [event["event"] for event in booking.get(f"/payments/{ours}/events").json["data"]] == ["payment.created"]

    for path in (
        "/consultations/101",
        "/consultations/5",
        *(f"/payments/{payment_id}{more}" for payment_id in (others, oldest) for more in ("", "/events")),
    ):
        assert booking.get(path).status_code == 403, path
    for path in ("/consultations/999", "/payments/999999", "/payments/999999/events"):
        assert booking.get(path).status_code == 404, path


def test_to_read_is_not_to_change(people: People, rows: Rows) -> None:
    put(people.booking, 100, patient_id=people.patient.id)
    payment_id = people.patient.pay(100).json["data"]["payment_id"]

    with nothing_written(rows):
        answers = [
            people.booking.confirm(payment_id),
            *(people.booking.post(f"/payments/{payment_id}/{verb}") for verb in ("cancel", "checkout", "refund")),
        ]
        assert people.booking.pay(100).status_code == 403

    assert [answer.status_code for answer in answers] == [403] * 4


def test_a_booking_system_that_was_disabled_reads_nothing_more(people: People, rows: Rows) -> None:
    put(people.booking, 100, patient_id=people.patient.id)
    payment_id = people.patient.pay(100).json["data"]["payment_id"]
    rows.execute("UPDATE users SET disabled_at = created_at WHERE id = :id", id=people.booking.id)

    for path in ("/consultations", "/consultations/100", "/payments", f"/payments/{payment_id}"):
        assert people.booking.get(path).status_code == 401, path


def test_the_command_registers_all_that_a_booking_system_can(people: People, database: Database) -> None:
    with commands_on(database.url) as commands:
        command = ("consultations", "put", 100, "--patient", "maria@example.com", "--name", "Maria Santos")
        told = ("--language", "id", "--description", "Check-up", "--starts-at", "2026-03-16T10:00+08:00")
        (new,) = commands.json(*command, *told, "--reference", "BK-77", "--fee", "1500")
        assert new["is_new"] is True
        assert (new["reference"], new["starts_at"]) == ("BK-77", "2026-03-16T02:00:00.000000Z")
        assert "already has another reference" in commands.refused(*command, "--reference", "BK-78")
        assert "starts_at: " in commands.refused(*command, "--starts-at", "tomorrow")
        assert "--name" in commands.refused("consultations", "put", 100, "--patient", "m@x.example", "--language", "id")
        nobody = ("consultations", "put", 101, "--patient", "no address", "--name", "Maria")
        assert "email: Not a valid e-mail address." in commands.refused(*nobody)

    shown = people.admin.get("/consultations/100").json["data"]
    assert (shown["description"], shown["fee"], shown["reference"]) == ("Check-up", 1500, "BK-77")
    assert people.booking.get("/consultations/100").status_code == 403
