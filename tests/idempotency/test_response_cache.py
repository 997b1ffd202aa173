"""Copies in Redis answer sooner, and are believed only for whom and for what they were made."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from redis.connection import AbstractConnection

from tests.support.apps import app_with, engine_of
from tests.support.databases import Database
from tests.support.people import People
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows
from tests.support.statements import statements_sent


@pytest.fixture
def with_redis(apps: Callable[..., Flask], redis_server: RedisServer, people: People) -> People:
    """The people as clients of an app with a Redis."""
    redis_server.client.flushall()
    return people.seen_by(apps(**redis_server.settings))


# What a replay by a copy asks of the database, and nothing else: whether the user still may.
STILL_MAY = "SELECT users.role, users.token_version, users.disabled_at"


def asked(statements: list[tuple[str, Any]]) -> list[str]:
    """The beginning of each statement, to the table that it reads."""
    return [" ".join(text.split()).partition(" FROM ")[0] for text, _ in statements if not text.startswith("BEGIN")]


def stored_copy(redis_server: RedisServer, name: str) -> list[Any]:
    stored = redis_server.client.get(name)
    assert isinstance(stored, str)
    copy: list[Any] = json.loads(stored)
    return copy


def test_a_copy_is_kept_for_five_minutes_and_asks_only_whether_the_user_still_may(
    with_redis: People, redis_server: RedisServer
) -> None:
    patient = with_redis.patient
    first = patient.pay(5, key="k")
    assert 0 < redis_server.client.ttl(f"payment:idempotency:{patient.id}:k") <= 300

    with statements_sent(engine_of(with_redis.app)) as statements:
        again = patient.pay(5, key="k")

    assert asked(statements) == [STILL_MAY]
    assert again.data == first.data
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("action", ["confirm", "cancel"])
def test_changes_have_copies_too(with_redis: People, action: str) -> None:
    patient = with_redis.patient
    payment_id = patient.pay(5).json["data"]["payment_id"]
    body = {"transaction_id": "TXN-1"} if action == "confirm" else {}
    ask = lambda: patient.post(f"/payments/{payment_id}/{action}", body, headers={"Idempotency-Key": "k"})  # noqa: E731
    first = ask()

    with statements_sent(engine_of(with_redis.app)) as statements:
        again = ask()

    assert asked(statements) == [STILL_MAY]
    assert again.data == first.data


ENDINGS = {
    "disabled": ("disabled_at = created_at", 401),
    "tokens revoked": ("token_version = token_version + 1", 401),
    "another role": ("role = 'booking'", 403),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_copy_is_not_given_to_who_may_no_longer(
    with_redis: People, redis_server: RedisServer, rows: Rows, ending: str
) -> None:
    """With a copy and without one the answer is the same."""
    patient, admin = with_redis.patient, with_redis.admin
    confirmed, cancelled = (patient.pay(number).json["data"]["payment_id"] for number in (6, 7))
    key = {"Idempotency-Key": "c"}
    asks = {
        "create": lambda: patient.pay(5, key="k"),
        "confirm": lambda: admin.confirm(confirmed, key="k"),
        "cancel": lambda: patient.post(f"/payments/{cancelled}/cancel", headers=key),
    }
    assert {name: ask().status_code for name, ask in asks.items()} == {"create": 201, "confirm": 200, "cancel": 200}
    assert len(redis_server.client.keys("payment:idempotency:*")) == 5

    change, status = ENDINGS[ending]
    for person in (patient, admin):
        rows.execute(f"UPDATE users SET {change} WHERE id = :id", id=person.id)
    refused = [{name: ask().status_code for name, ask in asks.items()}]
    assert len(redis_server.client.keys("payment:idempotency:*")) == 5
    redis_server.client.flushall()
    refused.append({name: ask().status_code for name, ask in asks.items()})
    assert refused == [dict.fromkeys(asks, status)] * 2

    for person, role in ((patient, "patient"), (admin, "admin")):
        back = "disabled_at = NULL, token_version = 0, role = :role"
        rows.execute(f"UPDATE users SET {back} WHERE id = :id", id=person.id, role=role)
    assert {ask().headers["Idempotent-Replayed"] for ask in asks.values()} == {"true"}


def test_a_copy_is_not_believed_for_another_request(with_redis: People) -> None:
    with_redis.patient.pay(5, key="k")

    answer = with_redis.patient.pay(6, key="k")

    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["consultation_id"]


def test_a_copy_is_not_believed_for_another_user(with_redis: People, rows: Rows) -> None:
    with_redis.patient.pay(5, key="k")

    assert with_redis.other.pay(5, key="k").status_code == 403
    assert with_redis.other.pay(21, key="k").status_code == 201
    assert rows.count("payments") == 2


def test_a_refusal_leaves_no_copy(with_redis: People, redis_server: RedisServer) -> None:
    with_redis.patient.pay(5, key="first")

    with_redis.patient.pay(5, key="refused")

    names = redis_server.client.keys("payment:idempotency:*")
    assert names == [f"payment:idempotency:{with_redis.patient.id}:first"]


def test_a_copy_of_another_database_is_not_believed(with_redis: People, redis_server: RedisServer, rows: Rows) -> None:
    first = with_redis.patient.pay(5, key="k")
    name = f"payment:idempotency:{with_redis.patient.id}:k"
    _database, *answer = stored_copy(redis_server, name)
    redis_server.client.set(name, json.dumps(["another database", *answer]))
    rows.execute("DELETE FROM idempotency_keys")

    assert with_redis.patient.pay(5, key="k").status_code == 409
    assert first.status_code == 201


@pytest.mark.parametrize("limited", ["true", "false"])
def test_redis_costs_a_create_two_round_trips_a_replay_one_and_a_read_none(
    database: Database, redis_server: RedisServer, people: People, monkeypatch: pytest.MonkeyPatch, limited: str
) -> None:
    sent: list[Any] = []
    send = AbstractConnection.send_packed_command

    def watched(connection: AbstractConnection, command: Any, **kwargs: Any) -> None:
        sent.append(command)
        send(connection, command, **kwargs)

    def round_trips(request: Callable[[], Any]) -> int:
        sent.clear()
        assert request().status_code in (200, 201)
        return len(sent)

    redis_server.client.flushall()
    with app_with(database.url, **redis_server.settings, RATELIMIT_ENABLED=limited) as app:
        patient = people.seen_by(app).patient
        patient.pay(5, key="connects")
        monkeypatch.setattr(AbstractConnection, "send_packed_command", watched)
        trips = {
            "create": round_trips(lambda: patient.pay(6, key="k")),
            "replay": round_trips(lambda: patient.pay(6, key="k")),
            "list": round_trips(lambda: patient.get("/payments")),
        }

    assert trips == {"create": 2, "replay": 1, "list": 0}


def test_what_redis_forgot_the_database_knows(with_redis: People, redis_server: RedisServer) -> None:
    first = with_redis.patient.pay(5, key="k")
    redis_server.client.flushall()

    assert with_redis.patient.pay(5, key="k").data == first.data


def test_a_copy_holds_no_more_than_the_answer(with_redis: People, redis_server: RedisServer) -> None:
    first = with_redis.patient.pay(5, key="k")

    kept = stored_copy(redis_server, f"payment:idempotency:{with_redis.patient.id}:k")

    database, fingerprint, status, body = kept
    assert (len(database), len(fingerprint)) == (16, 64)  # both hashes
    assert (status, body) == (201, first.text)


@pytest.mark.parametrize("garbage", ["", "{", "null", "[]", "{}", '["x", 201, "{}"]', "12", '"text"'])
def test_what_is_no_copy_of_ours_is_not_believed(with_redis: People, redis_server: RedisServer, garbage: str) -> None:
    first = with_redis.patient.pay(5, key="k")
    redis_server.client.set(f"payment:idempotency:{with_redis.patient.id}:k", garbage)

    assert with_redis.patient.pay(5, key="k").data == first.data


def test_a_key_of_another_kind_in_redis_is_gone_round(with_redis: People, redis_server: RedisServer) -> None:
    redis_server.client.rpush(f"payment:idempotency:{with_redis.patient.id}:k", "a list")

    assert with_redis.patient.pay(5, key="k").status_code == 201
