"""A PostgreSQL that is frozen neither answers nor refuses: our deadline ends the wait, and what was cut is unknown.

Frozen processes continue later and do what was sent to them before. So each test ends with that, and with a request
that is sent again with the same key.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg.pq import TransactionStatus
from sqlalchemy import event, text

from payments_app.accounts.models import Role
from payments_app.db import deadline
from payments_app.db.engine import lift_time_limits
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import DatabaseUnavailable
from tests.support.apps import app_with, engine_of
from tests.support.client import ApiResponse
from tests.support.cluster import Cluster, cluster_in_a_folder
from tests.support.databases import upgrade
from tests.support.fresh_databases import engine_on
from tests.support.frozen import freeze, frozen, thaw, wait_until_ended
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Seconds. Longer than a statement of these tests takes on a slow and busy machine, the first one on a new server too.
DEADLINE_SECONDS = 1.5

BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_in_a_folder(fsync="off") as cluster:
        upgrade(cluster.url)
        yield cluster


@pytest.fixture
def app(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.setattr("payments_app.db.engine.MARGIN_SECONDS", 0.2)
    monkeypatch.setattr("payments_app.db.engine.STATEMENT_TIMEOUT_MS", int(DEADLINE_SECONDS * 1_000) - 200)
    with app_with(cluster.url) as app:
        yield app


@pytest.fixture
def people(app: Flask, rows: Rows) -> People:
    people = People(app)
    first = rows.one("SELECT coalesce(max(id), 0) + 1 AS next FROM consultations")["next"]
    people.add_consultations(Role.PATIENT, first, first)
    return people


@pytest.fixture
def consultation_id(people: People, rows: Rows) -> int:  # noqa: ARG001  # the people's newest
    newest: int = rows.one("SELECT max(id) AS newest FROM consultations")["newest"]
    return newest


@pytest.fixture
def rows(cluster: Cluster) -> Iterator[Rows]:
    """Of another connection, which is not frozen with the app's."""
    with engine_on(cluster.url) as engine:
        yield Rows(engine)


@pytest.fixture(autouse=True)
def audited(rows: Rows) -> Iterator[None]:
    yield
    assert rows.violations() == []


def backend_of(app: Flask) -> int:
    """The process that the pool's only connection leads to."""
    with engine_of(app).connect() as connection:
        pid: int = connection.scalar(text("SELECT pg_backend_pid()"))
        return pid


def make_ready(app: Flask) -> None:
    """So that the next create is one statement: the checks have run, and its ids are at hand."""
    with app.app_context():
        assert app.extensions["readiness"].run_checks() == {}
        for table in ("payments", "invoices"):
            app.extensions["ids"].next_id(table)


def assert_unavailable(answer: ApiResponse) -> None:
    assert (answer.status_code, answer.json["retryable"]) == (503, True)
    assert int(answer.headers["Retry-After"]) > 0


def test_a_create_that_is_applied_after_the_cut_makes_one_payment(
    app: Flask, people: People, rows: Rows, consultation_id: int
) -> None:
    assert people.patient.get("/payments").status_code == 200
    make_ready(app)
    backend = backend_of(app)
    with frozen(backend):
        began = time.monotonic()
        created = people.patient.pay(consultation_id, key=f"create-{consultation_id}")
        lasted = time.monotonic() - began
    assert created.status_code == 201  # by the second attempt, on a new connection
    assert "Idempotent-Replayed" not in created.headers
    assert DEADLINE_SECONDS <= lasted < PATIENCE_SECONDS / 2
    wait_until_ended(backend)  # with all that was sent to it

    again = people.patient.pay(consultation_id, key=f"create-{consultation_id}")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert again.json == created.json
    assert rows.count("payments", f"consultation_id = {consultation_id}") == 1


def test_a_create_that_nobody_could_look_up_is_503_and_its_retry_finds_the_one_payment(
    app: Flask, cluster: Cluster, people: People, rows: Rows, consultation_id: int
) -> None:
    make_ready(app)
    backend = backend_of(app)
    everything = cluster.freeze()
    try:
        assert_unavailable(people.patient.pay(consultation_id, key=f"unknown-{consultation_id}"))
    finally:
        thaw(*everything)
    wait_until_ended(backend)  # it has run the statement, whose connection is gone
    assert rows.count("payments", f"consultation_id = {consultation_id}") == 1

    again = people.patient.pay(consultation_id, key=f"unknown-{consultation_id}")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert people.patient.pay(consultation_id, key="another").status_code == 409
    assert rows.count("payments", f"consultation_id = {consultation_id}") == 1


# Each write that is a transaction of several statements: its request, and how often its effect is in the database.
def _confirm(people: People, payment_id: int, _consultation_id: int) -> ApiResponse:
    return people.patient.confirm(payment_id, f"TXN-{payment_id}", key=f"confirm-{payment_id}")


def _cancel(people: People, payment_id: int, _consultation_id: int) -> ApiResponse:
    key = {"Idempotency-Key": f"cancel-{payment_id}"}
    return people.patient.post(f"/payments/{payment_id}/cancel", headers=key)


def _refund(people: People, payment_id: int, _consultation_id: int) -> ApiResponse:
    key = {"Idempotency-Key": f"refund-{payment_id}"}
    return people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000}, headers=key)


def _close(people: People, _payment_id: int, consultation_id: int) -> ApiResponse:
    return people.admin.post(f"/consultations/{consultation_id}/close")


def _link(people: People, _payment_id: int, consultation_id: int) -> ApiResponse:
    return people.admin.post(f"/consultations/{consultation_id}/links", {})


def _register(people: People, _payment_id: int, consultation_id: int) -> ApiResponse:
    body = {"patient_id": people.patient.id, "description": "later"}
    return people.admin.put(f"/consultations/{consultation_id}", body)


OF_PAYMENT = "payment_id = :payment_id AND consultation_id = :consultation_id"
WRITES: dict[str, tuple[Callable[[People, int, int], ApiResponse], str]] = {
    "confirm": (_confirm, "SELECT count(*) AS n FROM payment_events WHERE to_status = 'completed'"),
    "cancel": (_cancel, "SELECT count(*) AS n FROM payment_events WHERE to_status = 'cancelled'"),
    "refund": (_refund, "SELECT count(*) AS n FROM refunds"),
    "close": (_close, "SELECT count(*) AS n FROM consultations WHERE closed_at IS NOT NULL"),
    "link": (_link, "SELECT count(*) AS n FROM payment_links"),
    "register": (_register, "SELECT count(*) AS n FROM consultations WHERE description = 'later'"),
}


@contextmanager
def freezing_at_commit(app: Flask, stopped: list[int]) -> Iterator[None]:
    """Let the first COMMIT of a write go to a process that stands still, and append its id to ``stopped``."""

    def freeze_it(connection: Any) -> None:
        driver = connection.connection.driver_connection
        if not stopped and driver.info.transaction_status == TransactionStatus.INTRANS:
            # Or else, if it stands still for long, it would roll back when it continues.
            driver.execute("SET idle_in_transaction_session_timeout = 0")
            freeze(driver.info.backend_pid)
            stopped.append(driver.info.backend_pid)

    event.listen(engine_of(app), "commit", freeze_it)
    try:
        yield
    finally:
        event.remove(engine_of(app), "commit", freeze_it)


@pytest.mark.parametrize("write", WRITES)
def test_a_commit_that_is_applied_after_the_cut_has_its_effect_once(
    write: str, app: Flask, people: People, rows: Rows, consultation_id: int
) -> None:
    send, counted = WRITES[write]
    payment_id = people.patient.pay(consultation_id).json["data"]["payment_id"]
    if write == "refund":
        assert _confirm(people, payment_id, consultation_id).status_code == 200
    before = rows.one(counted)["n"]
    stopped: list[int] = []

    def continue_once_it_is_waited_for() -> None:
        wait_until(lambda: bool(stopped))
        wait_until(lambda: bool(rows.all(BLOCKED)))
        thaw(stopped[0])

    waiter = threading.Thread(target=continue_once_it_is_waited_for)
    waiter.start()
    with freezing_at_commit(app, stopped):
        answer = send(people, payment_id, consultation_id)
    waiter.join(PATIENCE_SECONDS)

    assert answer.status_code in (200, 201, 202), answer.text
    again = send(people, payment_id, consultation_id)
    assert again.status_code in (200, 201, 202), again.text
    extra = 1 if write == "link" else 0  # it has no key: a request that is repeated makes another link
    assert rows.one(counted)["n"] == before + 1 + extra


def test_a_commit_that_stays_unknown_is_503_and_its_retry_finds_it(
    app: Flask, people: People, rows: Rows, consultation_id: int
) -> None:
    payment_id = people.patient.pay(consultation_id).json["data"]["payment_id"]
    stopped: list[int] = []
    with freezing_at_commit(app, stopped):
        # The transaction that may yet commit holds its locks: the next attempts wait for them in vain.
        assert_unavailable(_confirm(people, payment_id, consultation_id))
    thaw(*stopped)
    wait_until_ended(stopped[0])

    again = _confirm(people, payment_id, consultation_id)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert rows.count("payment_events", f"payment_id = {payment_id} AND to_status = 'completed'") == 1


def test_after_a_cut_no_connection_of_the_pool_is_used_again(app: Flask) -> None:
    engine = engine_of(app)
    with engine.connect() as one, engine.connect() as other:
        before = {each.scalar(text("SELECT pg_backend_pid()")) for each in (one, other)}
    ask = read_transaction(lambda session: session.scalar(text("SELECT pg_backend_pid()")))
    with app.app_context(), frozen(*before):
        assert ask() not in before
        with engine.connect() as one, engine.connect() as other:
            assert not before & {each.scalar(text("SELECT pg_backend_pid()")) for each in (one, other)}
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_process_that_stops_waits_for_one_deadline_and_then_refuses(
    people: People, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    monkeypatch.setattr("payments_app.db.transaction.LOST_CONNECTION_SECONDS_STOPPING", DEADLINE_SECONDS / 2)
    assert people.patient.get("/payments").status_code == 200
    everything = cluster.freeze()
    try:
        with monkeypatch.context() as stopping:
            stopping.setattr(deadline, "_is_stopping", lambda: True)
            assert_unavailable(people.patient.get("/payments"))
            stopping.delattr(psycopg.Connection, "connect")
            for _ in range(3):  # those that waited in its queue: no connection is tried
                assert_unavailable(people.patient.get("/payments"))
    finally:
        thaw(*everything)


def test_a_stop_changes_nothing_while_the_database_answers(
    app: Flask, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "_unreachable_at", float("-inf"))
    monkeypatch.setattr(deadline, "_is_stopping", lambda: True)
    engine_of(app).dispose()
    assert people.patient.get("/payments").status_code == 200


@pytest.mark.parametrize("transaction", [read_transaction, write_transaction])
def test_a_command_has_no_deadline(transaction: Any, app: Flask) -> None:
    longer = text(f"SELECT pg_sleep({DEADLINE_SECONDS + 0.3})")
    with app.app_context():
        lift_time_limits()
        engine_of(app).dispose()  # of connections that were opened before
        transaction(lambda session: session.execute(longer))()


def test_a_silent_database_ends_a_request_after_two_deadlines(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a pooler a new connection is had at once, and its first statement waits again."""
    monkeypatch.setattr("payments_app.db.transaction.LOST_CONNECTION_SECONDS", DEADLINE_SECONDS * 1.5)
    attempts: list[int] = []

    @read_transaction
    def ask_a_frozen_one(session: Any) -> None:
        attempts.append(session.scalar(text("SELECT pg_backend_pid()")))
        freeze(attempts[-1])
        session.execute(text("SELECT 1"))

    with app.app_context():
        try:
            with pytest.raises(DatabaseUnavailable):
                ask_a_frozen_one()
        finally:
            thaw(*attempts)
    assert len(attempts) == 2
