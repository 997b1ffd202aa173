"""No call leaves this process while a database transaction is open, reads included."""

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, event

from payments_app.database import read_transaction, write_transaction
from tests.support.people import PASSWORD, People

_watched: dict[str, Any] = {"open": 0, "calls": []}


def _on_audit(name: str, _arguments: tuple[Any, ...]) -> None:
    # The databases' own drivers do not show here: libpq and SQLite are C and make no Python sockets.
    if name in ("socket.connect", "socket.getaddrinfo", "socket.sendto") and _watched["open"]:
        _watched["calls"].append(name)


sys.addaudithook(_on_audit)


@pytest.fixture
def calls_in_transactions(engine: Engine) -> Iterator[list[str]]:
    """The network calls that were made while a connection was checked out of the pool."""
    _watched.update(open=0, calls=[])

    def opened(*_: Any) -> None:
        _watched["open"] += 1

    def closed(*_: Any) -> None:
        _watched["open"] -= 1

    event.listen(engine.pool, "checkout", opened)
    event.listen(engine.pool, "checkin", closed)
    yield _watched["calls"]
    event.remove(engine.pool, "checkout", opened)
    event.remove(engine.pool, "checkin", closed)
    _watched["open"] = 0


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
