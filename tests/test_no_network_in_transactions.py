"""No call leaves this process while a database transaction is open, reads included."""

import http.client
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from redis.connection import AbstractConnection
from sqlalchemy import Engine, event

from payments_app import clock
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.gateways.registry import find_gateway
from payments_app.locking.locks import Strategy
from payments_app.payments import expire, resume
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.refunds import service
from payments_app.webhook_endpoints.sender import Sender
from tests.support.apps import app_with, engine_of
from tests.support.databases import Database
from tests.support.paymongo_apps import wallet_shop
from tests.support.people import PASSWORD, People
from tests.support.receiver import receiving
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card, resume_refunds, stripe_app_on

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


@pytest.fixture
def gateway_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """All that was sent over HTTP, each with the number of connections to the database that were checked out.

    The SDK keeps its connection to Stripe for the next call, so new sockets alone would show the first call only.
    """
    calls: list[tuple[str, int]] = []
    send = http.client.HTTPConnection.putrequest

    def watched(connection: Any, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        calls.append((f"{method} {url.partition('?')[0]}", _watched["open"]))
        send(connection, method, url, *args, **kwargs)

    monkeypatch.setattr(http.client.HTTPConnection, "putrequest", watched)
    return calls


@pytest.fixture
def stripe_app(database: Database, people: People) -> Iterator[StripeApp]:
    with stripe_app_on(database.url, people) as stripe_app, watching(engine_of(stripe_app.app)):
        yield stripe_app


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
        lambda: people.booking.get("/consultations/77"),
        lambda: people.booking.get("/payments"),
        lambda: people.booking.post("/consultations/77/close"),
        lambda: person.get("/payment-methods"),
        lambda: person.get("/payments"),
        lambda: people.admin.get("/payments"),
        lambda: people.admin.get("/desk/payments?search=patient"),
        lambda: people.admin.get("/desk/queues"),
        lambda: people.admin.post(f"/payments/{payment_id}/resolve-review"),
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
    settings = {**redis_server.settings, "PAYMENT_LOCKING": strategy, "RATELIMIT_ENABLED": "true"}
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


def tell(stripe_app: StripeApp, event: dict[str, Any]) -> None:
    """Deliver an event to the app's webhook endpoint."""
    body = json.dumps(event).encode()
    signed = {"Stripe-Signature": stripe_app.fake.sign(body)}
    assert stripe_app.people.anonymous().post("/api/v1/webhooks/stripe", data=body, headers=signed).status_code == 200


def assert_asked_outside_transactions(calls: list[tuple[str, int]], *, at_least: int, stripe_app: StripeApp) -> None:
    assert {call.split("/")[2] for call, _ in calls} <= {"payment_intents", "refunds"}
    assert len(calls) >= at_least
    assert [call for call, open_connections in calls if open_connections] == []
    assert engine_of(stripe_app.app).pool.checkedout() == 0  # type: ignore[attr-defined]  # both databases have a QueuePool


def test_no_gateway_is_asked_inside_a_transaction_by_what_comes_in(
    stripe_app: StripeApp, rows: Rows, gateway_calls: list[tuple[str, int]]
) -> None:
    """Checkout, confirm, cancel, webhooks and expire, by the real SDK."""
    fake, people, context = stripe_app.fake, stripe_app.people, AuditContext("test", None, clock.now())

    paid_id, intent = open_by_card(people, 1)
    assert people.patient.post(f"/payments/{paid_id}/checkout").status_code == 200
    assert people.patient.confirm(paid_id, intent).status_code == 402
    fake.pay(intent)
    assert people.patient.confirm(paid_id, intent).status_code == 200

    open_id, _ = open_by_card(people, 2)
    assert people.patient.post(f"/payments/{open_id}/refresh").status_code == 200
    assert people.patient.post(f"/payments/{open_id}/cancel").status_code == 200
    closed_id, _ = open_by_card(people, 7)
    assert people.admin.post("/consultations/7/close").status_code == 200
    too_late_id, too_late = open_by_card(people, 3)
    fake.pay(too_late)
    assert people.patient.post(f"/payments/{too_late_id}/cancel").status_code == 409

    told_id, told = open_by_card(people, 4)
    fake.pay(told)
    tell(stripe_app, fake.intent_event("succeeded", told))
    tell(stripe_app, fake.refund_event("created", fake.refund_in_dashboard(told, 500)["id"]))
    tell(stripe_app, fake.charge_refunded(told))

    late_id, _ = open_by_card(people, 5)
    slow_id, slow = open_by_card(people, 6)
    fake.start_processing(slow)
    tell(stripe_app, fake.intent_event("processing", slow))
    fake.pay(slow)
    with stripe_app.app.app_context():
        deadlines = Deadlines.at(clock.now() + timedelta(hours=1), stripe_app.app.config["SETTINGS"])
    with stripe_app.app.app_context():
        assert expire.expire(late_id, context) == expire.ExpiryResult.EXPIRED
        assert resume.resume(slow_id, deadlines, context) == expire.ExpiryResult.FOLLOWED

    kept = {row["id"]: row["status"] for row in rows.all("SELECT id, status FROM payments")}
    assert [kept[i] for i in (paid_id, open_id, too_late_id)] == ["completed", "cancelled", "completed"]
    assert kept[closed_id] == "cancelled"
    assert [kept[i] for i in (told_id, late_id, slow_id)] == ["partially_refunded", "expired", "completed"]
    assert_asked_outside_transactions(gateway_calls, at_least=14, stripe_app=stripe_app)


def test_no_gateway_is_asked_inside_a_transaction_by_what_goes_back(
    stripe_app: StripeApp, rows: Rows, gateway_calls: list[tuple[str, int]]
) -> None:
    """Refunds that are approved, declined, lost on the way back and lost on the way there; and resume."""
    fake, people = stripe_app.fake, stripe_app.people
    payment_id = pay_by_card(people, fake, 1)

    def refund(key: str) -> int:
        path, named = f"/payments/{payment_id}/refund", {"Idempotency-Key": key}
        status: int = people.admin.post(path, {"amount": 1000}, headers=named).status_code
        return status

    assert refund("approved") == 200
    fake.misbehave("refuse")
    assert refund("declined") == 402
    fake.misbehave("drop")
    assert [refund("lost"), refund("lost")] == [202, 202]
    fake.misbehave("late")
    assert refund("never-arrived") == 202
    assert rows.count("refunds", "status = 'unknown'") == 2
    with stripe_app.app.app_context():
        for refund_id in list(service.find_open(clock.now())):
            context = AuditContext("test", None, clock.now())
            assert service.resume(refund_id, lease_seconds=2, context=context) is not None

    assert [refund(key) for key in ("approved", "declined", "lost", "never-arrived")] == [200, 402, 200, 200]
    assert rows.count("refunds", "status = 'succeeded'") == 3
    assert fake.count("POST", "/v1/refunds") == 5  # one was looked up and found, one was sent again
    assert_asked_outside_transactions(gateway_calls, at_least=2 + 4 + 3, stripe_app=stripe_app)


@pytest.mark.parametrize("transaction", [read_transaction, write_transaction])
def test_the_watch_sees_a_gateway_asked_inside_a_transaction(
    stripe_app: StripeApp, gateway_calls: list[tuple[str, int]], transaction: Any
) -> None:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 1)
    del gateway_calls[:]

    def careless(session: Any) -> None:
        payment = session.get_one(Payment, payment_id)
        # Over the connection that the calls before have left open.
        find_gateway(payment.gateway).look_up(payment.charge, payment.transaction_id)

    with stripe_app.app.app_context():
        transaction(careless)()

    ((call, open_connections),) = gateway_calls
    assert call.startswith("GET /v1/payment_intents/pi_")
    assert open_connections == 1


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


def test_paymongo_is_not_asked_inside_a_transaction(
    database: Database, people: People, gateway_calls: list[tuple[str, int]]
) -> None:
    """Its webhooks ask too: what an event says is read again."""
    with wallet_shop(database.url, people) as shop, watching(engine_of(shop.app)):
        shop.check_out(shop.open(1)[0])
        cancelled_id, _ = shop.open(2)
        assert shop.people.patient.post(f"/payments/{cancelled_id}/cancel").status_code == 200
        payment_id, transaction_id = shop.paid(3)
        shop.tell(shop.fake.payment_event("paid", transaction_id))
        confirmed_id, session_id = shop.open(4)
        assert shop.people.patient.confirm(confirmed_id, shop.fake.pay(session_id)).status_code == 200
        shop.fake.misbehave("drop", path="/v1/refunds")
        assert shop.people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000}).status_code == 202
        resume_refunds(shop.app)
        shop.tell(shop.fake.payment_event("refunded", transaction_id))
        assert engine_of(shop.app).pool.checkedout() == 0  # type: ignore[attr-defined]  # both have a QueuePool

    assert len(gateway_calls) >= 12
    assert [call for call, open_connections in gateway_calls if open_connections] == []


def test_no_webhook_is_sent_inside_a_transaction(database: Database, people: People) -> None:
    with app_with(database.url, WEBHOOK_ALLOW_PRIVATE="1") as app, receiving() as receiver:
        admin = people.seen_by(app).admin
        assert admin.post("/webhook-endpoints", {"url": receiver.url("/a/ok")}).status_code == 201
        assert people.patient.pay(5).status_code == 201
        with app.app_context(), watching(engine_of(app)):
            Sender(app).run_once()

    assert len(receiver.at("/a/ok")) == 1
    assert _watched["calls"] == []
