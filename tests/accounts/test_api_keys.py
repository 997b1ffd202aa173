"""API keys: what they let a program do, and when they end."""

import logging
import re
from datetime import datetime, timedelta

import pytest
from flask import Flask

from payments_app import clock
from payments_app.accounts import key_format
from payments_app.accounts.models import Scope
from tests.api.assertions import assert_problem, nothing_written
from tests.support.api_keys import key_of
from tests.support.apps import app_with
from tests.support.client import client_of
from tests.support.databases import Database
from tests.support.people import People
from tests.support.redis_server import RedisServer
from tests.support.rows import EVERYTHING, Rows

CONSULTATION = {"patient_email": "patient@example.com", "fee": 5000}


def test_a_key_has_a_prefix_and_a_checksum() -> None:
    keys = {key_format.new_key() for _ in range(200)}

    assert len(keys) == 200
    assert all(re.fullmatch(r"cpk_[A-Za-z0-9_-]{43}[A-Za-z0-9]{6}", key) and key_format.is_key(key) for key in keys)
    key = keys.pop()
    other = "b" if key[10] == "a" else "a"
    for wrong in (key[:-1], key + "a", key[:10] + other + key[11:], key.upper(), "", "cpk_", f" {key}", f"{key}\n"):
        assert not key_format.is_key(wrong)
    # Computed elsewhere, as a secret scanner that knows the form does: CRC-32, to the base of 62, in six digits.
    assert key_format.is_key("cpk_" + "A" * 43 + "2OB8Cf")


def test_a_program_acts_as_its_user(people: People, rows: Rows) -> None:
    program = key_of(people, people.booking)

    assert program.get("/me").json["data"]["email"] == people.booking.email
    assert program.put("/consultations/900", CONSULTATION).status_code == 201
    assert program.get("/consultations/900").json["data"]["id"] == 900
    assert people.booking.get("/consultations/900").status_code == 200
    assert program.post("/consultations/900/links").status_code == 201
    assert_problem(program.get("/payments/1"), 404)
    assert_problem(program.post("/payments/1/refund", {"reason": "x"}), 403, code="forbidden")  # its user's role
    assert rows.one("SELECT registered_by FROM consultations WHERE id = 900")["registered_by"] == people.booking.id


def test_the_audit_trail_names_the_key(people: People, rows: Rows) -> None:
    program = key_of(people, people.admin, Scope.PAYMENTS_CONFIRM)
    payment_id = people.patient.pay(5, payment_method="gcash").json["data"]["payment_id"]

    assert program.confirm(payment_id).status_code == 200
    event = rows.one("SELECT actor FROM payment_events WHERE event = 'payment.completed'")
    assert event["actor"] == f"key:{program.key_id}"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("Bearer cpk_", "malformed"),
        ("Bearer cpk_" + "a" * 49, "malformed"),
        ("Bearer cpk_" + "A" * 43 + "2OB8Cf", "unknown"),
    ],
)
def test_no_key_of_ours_is_401(app: Flask, people: People, header: str, reason: str) -> None:
    answer = people.anonymous().get("/api/v1/me", headers={"Authorization": header})

    assert_problem(answer, 401, code="not-authenticated")
    assert f'payments_api_keys_refused_total{{reason="{reason}"}}' in client_of(app).get("/metrics").text


@pytest.mark.parametrize("ending", ["revoked", "expired", "disabled"])
def test_a_key_that_has_ended_does_nothing(people: People, rows: Rows, ending: str) -> None:
    program = key_of(people, people.booking)
    assert program.put("/consultations/900", CONSULTATION).status_code == 201
    end = {
        "revoked": "UPDATE api_keys SET revoked_at = :now",
        "expired": "UPDATE api_keys SET expires_at = :now, created_at = :before",
        "disabled": "UPDATE users SET disabled_at = :now WHERE id = :id",
    }[ending]
    now = clock.now()
    values = {"now": now, "before": now - timedelta(days=1), "id": people.booking.id}
    rows.execute(end, **{name: str(value) for name, value in values.items() if f":{name}" in end})

    with nothing_written(rows):
        for answer in (
            program.get("/me"),
            program.get("/payments"),
            program.put("/consultations/901", CONSULTATION),
            program.post("/consultations/900/close"),
        ):
            assert_problem(answer, 401, code="not-authenticated")


def test_a_replay_from_redis_asks_whether_the_key_still_stands(
    database: Database, redis_server: RedisServer, rows: Rows
) -> None:
    with app_with(database.url, REDIS_URL=redis_server.url) as app:
        people = People(app, patient=range(5, 7))
        program = key_of(people, people.admin)
        payment_id = people.patient.pay(5, payment_method="gcash").json["data"]["payment_id"]
        assert program.confirm(payment_id, key="k").status_code == 200
        assert "Idempotent-Replayed" in program.confirm(payment_id, key="k").headers
        rows.execute("UPDATE api_keys SET revoked_at = created_at")

        assert_problem(program.confirm(payment_id, key="k"), 401, code="not-authenticated")


def test_another_role_of_its_user_counts_at_once(people: People, rows: Rows) -> None:
    program = key_of(people, people.admin)
    rows.execute("UPDATE users SET role = 'booking' WHERE id = :id", id=people.admin.id)

    assert_problem(program.get("/disputes"), 403, code="forbidden")
    assert program.get("/me").json["data"]["role"] == "booking"


def test_a_scope_is_missing_by_name(people: People, rows: Rows) -> None:
    program = key_of(people, people.booking, Scope.PAYMENTS_READ)

    assert program.get("/payments").status_code == 200
    with nothing_written(rows):
        refused = program.put("/consultations/900", CONSULTATION)
    assert_problem(refused, 403, code="scope-missing")
    assert refused.json["data"] == {"scope": "consultations:write"}
    assert "consultations:write" in refused.json["detail"]


def test_no_key_pays(people: People, rows: Rows) -> None:
    program = key_of(people, people.patient)
    assert program.get("/me").status_code == 200  # which notes the hour of its first use

    with nothing_written(rows):
        for answer in (program.pay(5), program.post("/payments/1/cancel"), program.post("/payments/1/checkout")):
            assert_problem(answer, 403, code="login-required")


def test_the_hour_of_the_last_use_is_kept(people: People, rows: Rows) -> None:
    program = key_of(people, people.booking)
    for _ in range(3):
        assert program.get("/me").status_code == 200
    used = rows.one("SELECT last_used_at FROM api_keys")["last_used_at"]
    moment = used if isinstance(used, datetime) else datetime.fromisoformat(used)
    assert (moment.minute, moment.second, moment.microsecond) == (0, 0, 0)

    rows.execute("UPDATE api_keys SET last_used_at = '2020-01-01 10:00:00+00:00'")
    assert program.get("/me").status_code == 200
    assert str(rows.one("SELECT last_used_at FROM api_keys")["last_used_at"])[:19] == str(used)[:19]


def test_requests_are_limited_by_key(database: Database, rows: Rows) -> None:  # noqa: ARG001  # on an empty database
    with app_with(database.url, RATELIMIT_ENABLED="1", RATELIMIT_API_KEYS="3 per minute") as app:
        people = People(app, patient=range(5, 7))
        first, second = (key_of(people, people.booking) for _ in range(2))
        paths = ("/me", "/payments", "/consultations")
        answers = [first.get(path) for path in (*paths, "/me")]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert second.get("/me").status_code == 200
        assert people.booking.get("/me").status_code == 200  # a login has no such limit


def test_a_key_stands_in_no_log_and_no_table(people: People, rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    program = key_of(people, people.booking)
    program.put("/consultations/900", CONSULTATION)
    program.get("/me", query_string={"key": "x"})

    secret = program.token[len(key_format.PREFIX) + 8 :]
    assert secret not in caplog.text
    for table in EVERYTHING:
        assert secret not in str(rows.all(f"SELECT * FROM {table}"))
