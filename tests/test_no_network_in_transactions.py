"""No call leaves this process while a database transaction is open, reads included."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from redis.connection import AbstractConnection
from sqlalchemy import Engine, event

from payments_app.database import read_transaction, write_transaction
from payments_app.locking.locks import Strategy
from tests.support.apps import app_with
from tests.support.databases import Database
from tests.support.people import PASSWORD, People
from tests.support.redis_server import RedisServer

_watched: dict[str, Any] = {"open": 0, "calls": []}


def _on_audit(name: str, _arguments: tuple[Any, ...]) -> None:
    # The databases' own drivers do not show here: libpq and SQLite are C and make no Python sockets.
    if name in ("socket.connect", "socket.getaddrinfo", "socket.sendto") and _watched["open"]:
        _watched["calls"].append(name)


sys.addaudithook(_on_audit)


@contextmanager
def watching(engine: Engine) -> Iterator[None]:
    """Count the connections that are checked out of the pool while the block runs."""
    _watched.update(open=0, calls=[])

    def opened(*_: Any) -> None:
        _watched["open"] += 1

    def closed(*_: Any) -> None:
        _watched["open"] -= 1

    event.listen(engine.pool, "checkout", opened)
    event.listen(engine.pool, "checkin", closed)
    yield
    event.remove(engine.pool, "checkout", opened)
    event.remove(engine.pool, "checkin", closed)
    _watched["open"] = 0


@pytest.fixture
def calls_in_transactions(engine: Engine) -> Iterator[list[str]]:
    """The network calls that were made while a connection was checked out of the pool."""
    with watching(engine):
        yield _watched["calls"]


@pytest.fixture
def redis_calls_in_transactions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was sent to Redis while a connection to the database was checked out; real calls, only watched."""
    calls: list[str] = []
    send = AbstractConnection.send_packed_command

    def watched(connection: AbstractConnection, command: Any, **kwargs: Any) -> None:
        if _watched["open"]:
            calls.append(repr(command))
        send(connection, command, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", watched)
    return calls


def _call_out(*_: Any) -> None:
    with socket.socket() as caller:
        caller.connect_ex(("127.0.0.1", 9))


@pytest.mark.parametrize("transaction", [read_transaction, write_transaction])
def test_the_watch_sees_a_call_inside_a_transaction(
    app: Flask, calls_in_transactions: list[str], transaction: Any
) -> None:
    def careless(session: Any) -> None:
        session.connection()
        _call_out()

    with app.app_context():
        transaction(careless)()

    assert calls_in_transactions == ["socket.connect"]


def test_no_request_calls_out_or_leaves_a_connection_open(
    people: People, engine: Engine, calls_in_transactions: list[str]
) -> None:
    person = people.patient
    payment_id = person.pay(5, key="k").json["data"]["payment_id"]
    requests = [
        lambda: person.pay(5, key="k"),
        lambda: person.pay(5, key="other"),
        lambda: person.pay(6, key="k"),
        lambda: person.get("/me"),
        lambda: person.get("/consultations"),
        lambda: person.get("/consultations/5"),
        lambda: people.booking.put("/consultations/77", {"patient_id": person.id}),
        lambda: person.get("/payment-methods"),
        lambda: person.get("/payments"),
        lambda: people.admin.get("/payments"),
        lambda: person.get(f"/payments/{payment_id}"),
        lambda: person.get(f"/payments/{payment_id}/events"),
        lambda: person.confirm(payment_id),
        lambda: person.confirm(payment_id),
        lambda: person.post(f"/payments/{payment_id}/cancel"),
        lambda: people.anonymous().post("/api/login", json={"email": person.email, "password": PASSWORD}),
    ]
    for request in requests:
        assert request().status_code < 500
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # both databases have a QueuePool

    assert calls_in_transactions == []


@pytest.mark.parametrize("strategy", list(Strategy))
def test_redis_is_never_asked_inside_a_transaction(
    strategy: Strategy,
    database: Database,
    redis_server: RedisServer,
    people: People,
    redis_calls_in_transactions: list[str],
) -> None:
    redis_server.client.flushall()
    settings = {"REDIS_URL": redis_server.url, "PAYMENT_LOCKING": strategy, "RATELIMIT_ENABLED": "true"}
    with app_with(database.url, **settings) as app, app.app_context(), watching(app.extensions["sqlalchemy"].engine):
        patient = people.seen_by(app).patient
        payment_id = patient.pay(5, key="k").json["data"]["payment_id"]
        for _ in range(2):
            patient.pay(5, key="k")
            patient.pay(5, key="other")
            patient.confirm(payment_id, key="c")
            patient.post(f"/payments/{payment_id}/cancel")
            patient.get("/payment-methods")

    assert redis_server.client.info("commandstats")["cmdstat_set"]["calls"] > 0
    assert redis_calls_in_transactions == []


def test_the_watch_sees_redis_inside_a_transaction(
    app: Flask, engine: Engine, redis_server: RedisServer, redis_calls_in_transactions: list[str]
) -> None:
    def careless(session: Any) -> None:
        session.connection()
        redis_server.client.ping()

    with app.app_context(), watching(engine):
        write_transaction(careless)()

    assert len(redis_calls_in_transactions) == 1


def test_no_connection_is_open_while_a_password_is_checked(
    people: People, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash takes tens of milliseconds, in which others could use the connection."""
    open_connections: list[int] = []
    from payments_app.accounts import passwords  # noqa: PLC0415

    is_correct = passwords.is_correct

    def watching(password: str, password_hash: str | None) -> bool:
        open_connections.append(engine.pool.checkedout())  # type: ignore[attr-defined]
        return is_correct(password, password_hash)

    monkeypatch.setattr(passwords, "is_correct", watching)
    people.anonymous().post("/api/login", json={"email": people.patient.email, "password": PASSWORD})

    assert open_connections == [0]
