"""Leases in Redis and locks on rows: who waits for whom, how long, and what is never done."""

import json
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from flask import Flask
from sqlalchemy import text

from payments_app.errors import LockTimeout
from payments_app.gateways.base import Approved, GatewayRefundRequest
from payments_app.gateways.sandbox import SandboxGateway
from payments_app.locking import locks
from tests.support.apps import app_with, engine_of
from tests.support.databases import Database
from tests.support.people import People
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows
from tests.support.statements import statements_sent
from tests.support.waiting import PATIENCE_SECONDS, wait_until

LockingApp = Callable[..., AbstractContextManager[People]]


@pytest.fixture
def locking(apps: Callable[..., Flask], redis_server: RedisServer, people: People) -> Callable[..., People]:
    """The people as clients of an app with this strategy."""
    redis_server.client.flushall()

    def start(strategy: str, **settings: str) -> People:
        return people.seen_by(apps(**{"PAYMENT_LOCKING": strategy, **redis_server.settings, **settings}))

    return start


@pytest.mark.parametrize(("strategy", "leases"), [("optimistic", 0), ("pessimistic", 0), ("redis", 1), ("hybrid", 1)])
def test_each_strategy_takes_the_leases_it_should(
    locking: Callable[..., People], caplog: pytest.LogCaptureFixture, strategy: str, leases: int
) -> None:
    people = locking(strategy)
    with caplog.at_level(logging.DEBUG, "payments_app.locking"):
        payment_id, cancelled_id = (people.patient.pay(number).json["data"]["payment_id"] for number in (5, 6))
        assert people.patient.confirm(payment_id).status_code == 200
        assert people.patient.post(f"/payments/{cancelled_id}/cancel").status_code == 200
        assert people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000}).status_code == 200

    def said(what: str, name: str) -> int:
        return sum(record.getMessage().startswith(f"Lock {what}: {name}") for record in caplog.records)

    create, change = f"payment:lock:5:{people.patient.id}", f"payment:confirm:{payment_id}"
    assert said("acquired", create) == said("released", create) == leases
    assert said("acquired", change) == said("released", change) == 2 * leases  # confirm and refund
    cancelled = f"payment:confirm:{cancelled_id}"
    assert said("acquired", cancelled) == said("released", cancelled) == leases


def test_a_refund_holds_no_lease_while_its_gateway_is_asked(
    locking: Callable[..., People], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = locking("hybrid")
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    assert people.patient.confirm(payment_id).status_code == 200
    held: list[list[str]] = []
    refund = SandboxGateway.refund

    def watched(gateway: SandboxGateway, order: GatewayRefundRequest) -> Approved:
        held.append([str(name) for name in redis_server.client.keys("payment:confirm:*")])
        return refund(gateway, order)

    monkeypatch.setattr(SandboxGateway, "refund", watched)

    assert people.admin.post(f"/payments/{payment_id}/refund").status_code == 200
    assert held == [[]]


@pytest.mark.parametrize(
    ("strategy", "uses_row_locks"), [("optimistic", False), ("pessimistic", True), ("redis", False), ("hybrid", True)]
)
def test_rows_are_locked_where_the_strategy_says(
    locking: Callable[..., People], strategy: str, uses_row_locks: bool
) -> None:
    people = locking(strategy)
    engine = engine_of(people.app)
    with statements_sent(engine) as sent:
        payment_id = people.patient.pay(5).json["data"]["payment_id"]
        people.patient.confirm(payment_id)
    with statements_sent(engine) as sent_to_refund:
        assert people.admin.post(f"/payments/{payment_id}/refund").status_code == 200

    selects = [statement for statement, _ in sent if statement.startswith("SELECT")]
    if engine.dialect.name == "postgresql":
        assert [s.split("FROM ")[1].split()[0] for s in selects if s.endswith("FOR UPDATE")] == (
            ["consultations", "payments"] if uses_row_locks else []
        )
        # Placing a refund waits for whoever has the row where the strategy says so; settling it always does.
        locked = [statement for statement, _ in sent_to_refund if statement.endswith("FOR UPDATE")]
        assert [statement.split("FROM ")[1].split()[0] for statement in locked] == ["payments"] * (1 + uses_row_locks)
    else:
        # SQLite has one lock, which every writer takes.
        assert not any("FOR UPDATE" in statement for statement, _ in (*sent, *sent_to_refund))


@pytest.mark.parametrize("strategy", ["redis", "hybrid"])
def test_a_lock_not_had_in_time_is_a_retryable_409_and_changes_nothing(
    locking: Callable[..., People], redis_server: RedisServer, rows: Rows, strategy: str
) -> None:
    people = locking(strategy, PAYMENT_LOCK_RETRY_DELAY="1", PAYMENT_LOCK_MAX_ATTEMPTS="3")
    name = f"payment:lock:5:{people.patient.id}"
    redis_server.client.set(name, "another", ex=60)

    answer = people.patient.pay(5)

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/lock-timeout")
    assert answer.json["retryable"] is True
    assert answer.headers["Retry-After"] == "1"
    assert rows.count("payments") == 0
    assert redis_server.client.get(name) == "another"


@pytest.mark.parametrize("strategy", ["redis", "hybrid"])
def test_a_refund_whose_lease_is_not_had_in_time_returns_nothing(
    locking: Callable[..., People], redis_server: RedisServer, rows: Rows, strategy: str
) -> None:
    people = locking(strategy, PAYMENT_LOCK_RETRY_DELAY="1", PAYMENT_LOCK_MAX_ATTEMPTS="3")
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    assert people.patient.confirm(payment_id).status_code == 200
    redis_server.client.set(f"payment:confirm:{payment_id}", "another", ex=60)

    answer = people.admin.post(f"/payments/{payment_id}/refund", headers={"Idempotency-Key": "r"})

    assert (answer.status_code, answer.json["retryable"]) == (409, True)
    assert answer.json["type"].endswith("/lock-timeout")
    assert rows.count("refunds") == rows.count("idempotency_keys", "key = 'r'") == 0
    assert rows.one("SELECT refund_reserved_minor + refunded_minor AS gone FROM payments") == {"gone": 0}


def test_no_one_tries_more_often_than_configured(locking: Callable[..., People], redis_server: RedisServer) -> None:
    people = locking("redis", PAYMENT_LOCK_RETRY_DELAY="1", PAYMENT_LOCK_MAX_ATTEMPTS="4")
    name = f"payment:lock:5:{people.patient.id}"
    redis_server.client.set(name, "another", ex=60)
    redis_server.client.config_resetstat()

    people.patient.pay(5)

    tries = redis_server.client.info("commandstats")["cmdstat_set"]["calls"]
    assert 1 <= tries <= 4


def test_a_twin_that_waited_in_vain_gets_the_answer_if_there_is_one(
    locking: Callable[..., People], redis_server: RedisServer, people: People
) -> None:
    first = people.patient.pay(5, key="k")  # through the app without Redis: no copy is kept
    waiting = locking("redis", PAYMENT_LOCK_RETRY_DELAY="1", PAYMENT_LOCK_MAX_ATTEMPTS="2")
    redis_server.client.set(f"payment:lock:5:{people.patient.id}", "the twin, still at work", ex=60)

    answer = waiting.patient.pay(5, key="k")

    assert answer.status_code == 201
    assert answer.data == first.data
    assert answer.headers["Idempotent-Replayed"] == "true"


def test_a_twin_that_waited_in_vain_gets_no_answer_once_its_user_was_disabled(
    locking: Callable[..., People], redis_server: RedisServer, people: People, rows: Rows
) -> None:
    people.patient.pay(5, key="k")
    waiting = locking("redis", PAYMENT_LOCK_RETRY_DELAY="1", PAYMENT_LOCK_MAX_ATTEMPTS="2")
    redis_server.client.set(f"payment:lock:5:{people.patient.id}", "the twin, still at work", ex=60)
    rows.execute("UPDATE users SET disabled_at = created_at WHERE id = :id", id=people.patient.id)

    assert waiting.patient.pay(5, key="k").status_code == 401


def test_a_lease_that_ran_out_under_a_slow_transaction_releases_nobody_elses(
    locking: Callable[..., People], redis_server: RedisServer, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    people = locking("redis", PAYMENT_LOCK_TIMEOUT="1")
    name = f"payment:lock:5:{people.patient.id}"
    caplog.set_level(logging.WARNING, "payments_app.locking")
    with people.app.app_context(), locks.create_lock(5, people.patient.id):
        # The lease ends, as after a pause of the process, and another takes it.
        redis_server.client.pexpire(name, 0)
        redis_server.client.set(name, "another", ex=60)

    assert redis_server.client.get(name) == "another"
    assert "Lock lost" in caplog.text
    assert rows.count("payments") == 0


@pytest.mark.usefixtures("audited")
def test_two_who_both_believe_they_hold_the_lease_still_make_one_payment(
    locking: Callable[..., People], redis_server: RedisServer, rows: Rows
) -> None:
    """The first is held up inside its lease, which ends; the second gets in. The index decides."""
    people = locking("redis", PAYMENT_LOCK_TIMEOUT="1")
    name = f"payment:lock:5:{people.patient.id}"
    statuses: list[int] = []

    with engine_of(people.app).connect() as holding:
        # Whoever writes waits for us: the table is locked on PostgreSQL, the database on SQLite, by what begins it.
        is_postgresql = holding.dialect.name == "postgresql"
        holding.execute(text("LOCK TABLE idempotency_keys IN SHARE MODE" if is_postgresql else "SELECT 1"))
        slow = threading.Thread(target=lambda: statuses.append(people.patient.pay(5, key="slow").status_code))
        slow.start()
        wait_until(lambda: redis_server.client.exists(name) == 1)
        redis_server.client.delete(name)
        quick = threading.Thread(target=lambda: statuses.append(people.patient.pay(5, key="quick").status_code))
        quick.start()
        wait_until(lambda: redis_server.client.exists(name) == 1)
        holding.rollback()
    slow.join(PATIENCE_SECONDS)
    quick.join(PATIENCE_SECONDS)

    assert sorted(statuses) == [201, 409]
    assert rows.count("payments") == 1


def test_without_redis_the_lock_is_not_missed(locking: Callable[..., People], rows: Rows) -> None:
    people = locking("hybrid", REDIS_URL="redis://127.0.0.1:1/0")

    assert people.patient.pay(5).status_code == 201
    assert people.patient.pay(5).status_code == 409
    assert rows.count("payments") == 1


def test_a_refused_request_gives_its_lease_back(locking: Callable[..., People], redis_server: RedisServer) -> None:
    people = locking("redis")

    people.patient.pay(999)
    people.patient.confirm(12345)

    assert redis_server.client.keys("payment:*") == []


def test_the_context_manager_raises_where_the_lease_is_taken(
    locking: Callable[..., People], redis_server: RedisServer
) -> None:
    people = locking("redis", PAYMENT_LOCK_RETRY_DELAY="1", PAYMENT_LOCK_MAX_ATTEMPTS="1")
    redis_server.client.set("payment:confirm:7", "another", ex=60)

    with people.app.app_context(), pytest.raises(LockTimeout), locks.change_lock(7):
        pytest.fail("the lease was somebody else's")


def test_held_locks_can_be_listed(locking: Callable[..., People], redis_server: RedisServer) -> None:
    people = locking("redis")
    runner = people.app.test_cli_runner()
    assert runner.invoke(args=["locks", "list"]).stdout == "no locks are held\n"

    with people.app.app_context(), locks.create_lock(5, 7), locks.change_lock(9):
        table = runner.invoke(args=["locks", "list"]).stdout.splitlines()
        as_json = runner.invoke(args=["locks", "list", "--json"]).stdout.splitlines()

    assert [line.split()[0] for line in table] == ["lock", "payment:confirm:9", "payment:lock:5:7"]
    assert all("/command/" in line for line in table[1:])
    assert len({line.index("/command/") for line in table[1:]}) == 1  # aligned
    assert all(0 < json.loads(line)["remaining_seconds"] <= 5 for line in as_json)
    assert redis_server.client.keys("payment:*") == []


def test_listing_locks_without_redis_is_one_plain_line(database: Database) -> None:
    with app_with(database.url) as app:
        result = app.test_cli_runner().invoke(args=["locks", "list"])

    assert result.exit_code == 2
    assert "No Redis is configured" in result.stderr


def test_waiting_is_measured(locking: Callable[..., People]) -> None:
    people = locking("redis")

    people.patient.pay(5)

    metrics = people.anonymous().get("/metrics").text
    assert 'payments_lock_wait_seconds_count{outcome="acquired"}' in metrics


def test_a_lock_that_somebody_set_by_hand_is_listed_too(
    locking: Callable[..., People], redis_server: RedisServer
) -> None:
    people = locking("redis")
    redis_server.client.set("payment:lock:1:1", "by hand")
    redis_server.client.rpush("payment:confirm:2", "by mistake")

    listed = people.app.test_cli_runner().invoke(args=["locks", "list"]).stdout.splitlines()[1:]

    assert [" ".join(line.split()) for line in listed] == [
        "payment:confirm:2 no end unknown: not a lock of this service",
        "payment:lock:1:1 no end by hand",
    ]
    redis_server.client.flushall()
