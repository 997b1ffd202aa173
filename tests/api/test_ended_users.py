"""Users who may no longer: refused at login and at every write, whatever token they still hold (spec, section 5)."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.api.assertions import assert_problem, nothing_written
from tests.support.client import ApiResponse
from tests.support.people import PASSWORD, People, Person
from tests.support.rows import Rows


def create(person: Person, _payment_id: int) -> ApiResponse:
    return person.pay(6)


def create_for_a_missing_consultation(person: Person, _payment_id: int) -> ApiResponse:
    return person.pay(999)


def replay(person: Person, _payment_id: int) -> ApiResponse:
    return person.pay(5, key="the-first-key")


def confirm(person: Person, payment_id: int) -> ApiResponse:
    return person.confirm(payment_id)


def cancel(person: Person, payment_id: int) -> ApiResponse:
    return person.post(f"/payments/{payment_id}/cancel")


def checkout(person: Person, payment_id: int) -> ApiResponse:
    return person.post(f"/payments/{payment_id}/checkout")


def replay_checkout(person: Person, payment_id: int) -> ApiResponse:
    return person.post(f"/payments/{payment_id}/checkout", headers={"Idempotency-Key": "the-first-checkout"})


def refund(person: Person, payment_id: int) -> ApiResponse:
    return person.post(f"/payments/{payment_id}/refund")


def register(person: Person, _payment_id: int) -> ApiResponse:
    return person.put("/consultations/500", {"patient_email": "other@example.com"})


def close(person: Person, _payment_id: int) -> ApiResponse:
    return person.post("/consultations/5/close")


class Writer(NamedTuple):
    """Somebody, what they write, and the status they get while they may."""

    who: str
    write: Callable[[Person, int], ApiResponse]
    good_status: int


WRITERS = [
    Writer("patient", create, 201),
    Writer("patient", create_for_a_missing_consultation, 404),
    Writer("patient", replay, 201),
    Writer("patient", confirm, 200),
    Writer("patient", cancel, 200),
    Writer("patient", checkout, 200),
    Writer("patient", replay_checkout, 200),
    Writer("admin", confirm, 200),
    Writer("admin", cancel, 200),
    Writer("admin", refund, 409),
    Writer("admin", register, 201),
    Writer("booking", register, 201),
    Writer("admin", close, 200),
    Writer("booking", close, 200),
]


ENDINGS = {"disabled": "disabled_at = created_at", "tokens revoked": "token_version = token_version + 1"}


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: f"{writer.who} {writer.write.__name__}")
def test_who_was_disabled_or_revoked_writes_nothing(people: People, rows: Rows, writer: Writer) -> None:
    person: Person = getattr(people, writer.who)
    payment_id = people.patient.pay(5, key="the-first-key").json["data"]["payment_id"]

    for ending in ENDINGS.values():
        rows.execute(f"UPDATE users SET {ending} WHERE id = :id", id=person.id)
        with nothing_written(rows):
            refused = writer.write(person, payment_id)
        assert_problem(refused, 401, code="not-authenticated")
        rows.execute("UPDATE users SET disabled_at = NULL, token_version = 0 WHERE id = :id", id=person.id)

    # It was that, and nothing else, that stood in the way.
    assert writer.write(person, payment_id).status_code == writer.good_status


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("key", ["the-first-key", "an-unknown-key"])
def test_who_was_disabled_or_revoked_is_told_neither_of_their_keys_nor_of_themselves(
    people: People, rows: Rows, ending: str, key: str
) -> None:
    """What a key has done is shown with the first answer: a replay by another name."""
    assert people.patient.pay(5, key="the-first-key").status_code == 201
    rows.execute(f"UPDATE users SET {ENDINGS[ending]} WHERE id = :id", id=people.patient.id)

    for path in (f"/idempotency-keys/{key}", "/me"):
        assert_problem(people.patient.get(path), 401, code="not-authenticated")


def test_login_refuses_the_disabled_the_wrong_and_the_unknown_alike(
    people: People, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    rows.execute("UPDATE users SET disabled_at = created_at WHERE id = :id", id=people.other.id)
    attempts = {
        "disabled": (people.other.email, PASSWORD),
        "a wrong password": (people.patient.email, PASSWORD.upper()),
        "a blank behind": (people.patient.email, f"{PASSWORD} "),
        "unknown": ("nobody@example.com", PASSWORD),
        "SQL": ("' OR 1=1 --", PASSWORD),
    }

    with nothing_written(rows):
        answers = [
            people.anonymous().post("/api/login", json={"email": email, "password": password})
            for email, password in attempts.values()
        ]

    for answer in answers:
        assert_problem(answer, 401, code="invalid-credentials")
        assert PASSWORD not in answer.text
    assert len({answer.json["detail"] for answer in answers}) == 1
    assert PASSWORD not in caplog.text


def test_who_was_disabled_logs_in_again_once_enabled(people: People, rows: Rows) -> None:
    login = {"email": people.other.email, "password": PASSWORD}
    rows.execute("UPDATE users SET disabled_at = created_at WHERE id = :id", id=people.other.id)
    assert people.anonymous().post("/api/login", data=login).status_code == 401

    rows.execute("UPDATE users SET disabled_at = NULL WHERE id = :id", id=people.other.id)
    assert people.anonymous().post("/api/login", data=login).status_code == 200
