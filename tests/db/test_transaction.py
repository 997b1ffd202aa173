"""Transactions: what is tried again, what is given up and how that is said, and that nothing stays open."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask, request_finished
from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from payments_app.accounts.models import Role
from payments_app.db.errors import RetryTransaction
from payments_app.db.ids import BLOCK_SIZE, next_id
from payments_app.db.transaction import FirstAttempt, read_transaction, write_transaction
from payments_app.errors import DatabaseBusy, DatabaseUnavailable, PaymentNotFound, VersionConflict
from payments_app.payments.models.payment import Payment
from tests.support.apps import app_with, engine_of
from tests.support.client import ApiResponse, client_of
from tests.support.databases import Database
from tests.support.dialects import DIALECTS, long_on_sqlite, on_postgresql, on_sqlite
from tests.support.fresh_databases import engine_on, fresh_database
from tests.support.own_server import own_postgresql
from tests.support.people import PASSWORD, People, Person
from tests.support.raw_rows import Raw
from tests.support.rows import MADE_TOGETHER, Rows
from tests.support.statements import lone_statements
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.support.warm_python import start_python

ATTEMPTS = 3  # by default

# As SQLite says it: https://sqlite.org/pragma.html#pragma_synchronous. NORMAL, 1, may forget what was committed.
SYNCHRONOUS_FULL = 2


@contextmanager
def errors_of(engine: Engine) -> Iterator[list[Any]]:
    """What the driver raised inside, in order: the SQLSTATE, or SQLite's name for it."""
    seen: list[Any] = []

    def note(context: Any) -> None:
        error = context.original_exception
        seen.append(getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None))

    event.listen(engine, "handle_error", note)
    try:
        yield seen
    finally:
        event.remove(engine, "handle_error", note)


def as_served_by(app: Flask, person: Person) -> Person:
    """The same person at another app on the same database."""
    return Person(client_of(app), person.id, person.email, person.token)


def assert_503(answer: ApiResponse, code: str) -> None:
    assert answer.status_code == 503
    assert answer.mimetype == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json["type"].endswith(f"/{code}")
    assert (answer.json["status"], answer.json["retryable"]) == (503, True)
    for secret in ("psycopg", "sqlite", "select", "insert", "traceback", "socket", "sqlalche"):
        assert secret not in answer.text.lower()


# Races lost to somebody who is there


@on_postgresql
@pytest.mark.usefixtures("people")
def test_of_two_transactions_that_wait_for_each_other_both_succeed(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that it is the deadlock that ends the waiting, on the slowest machine.
    monkeypatch.setattr("payments_app.db.engine.LOCK_TIMEOUT_MS", PATIENCE_SECONDS * 1_000)
    monkeypatch.setattr("payments_app.db.engine.STATEMENT_TIMEOUT_MS", PATIENCE_SECONDS * 1_000)
    rows.execute("UPDATE consultations SET fee_minor = 100")
    both_hold_one = threading.Barrier(2)
    attempts: list[int] = []

    @write_transaction
    def raise_both_fees(session: Session, first: int, second: int) -> None:
        attempts.append(first)
        raise_fee = text("UPDATE consultations SET fee_minor = fee_minor + 1 WHERE id = :id")
        session.execute(raise_fee, {"id": first})
        if attempts.count(first) == 1:
            both_hold_one.wait(PATIENCE_SECONDS)
        session.execute(raise_fee, {"id": second})

    def in_a_thread(app: Flask, first: int, second: int) -> None:
        with app.app_context():
            raise_both_fees(first, second)

    with app_with(database.url) as app, errors_of(engine_of(app)) as errors, ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(in_a_thread, app, 1, 2), pool.submit(in_a_thread, app, 2, 1)]:
            done.result()

    assert errors == ["40P01"]
    assert len(attempts) == 3
    assert rows.all("SELECT id, fee_minor FROM consultations WHERE fee_minor <> 100 ORDER BY id") == [
        {"id": 1, "fee_minor": 102},
        {"id": 2, "fee_minor": 102},
    ]


def attempts_of_a_loser(database_url: str, **settings: str) -> int:
    """How often a transaction is tried that loses each race."""
    attempts: list[None] = []

    @write_transaction
    def lose(_session: Session) -> None:
        attempts.append(None)
        raise RetryTransaction

    with app_with(database_url, **settings) as app, app.app_context(), pytest.raises(DatabaseBusy):
        lose()
    return len(attempts)


@on_sqlite
def test_the_number_of_attempts_is_a_setting(database: Database) -> None:
    assert attempts_of_a_loser(database.url) == ATTEMPTS
    assert attempts_of_a_loser(database.url, TRANSACTION_ATTEMPTS="7") == 7


@on_sqlite
def test_no_attempt_after_the_third_begins_late(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payments_app.db.transaction.LATER_ATTEMPTS_SECONDS", 0)

    assert attempts_of_a_loser(database.url, TRANSACTION_ATTEMPTS="20") == ATTEMPTS


@on_postgresql
@pytest.mark.parametrize("races_lost", range(ATTEMPTS + 1))
def test_a_version_that_was_raised_in_between_is_read_again_until_the_attempts_are_used_up(
    races_lost: int, app: Flask, people: People, rows: Rows
) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    read: list[int] = []

    @write_transaction
    def change(session: Session) -> None:
        payment = session.get_one(Payment, payment_id)
        read.append(payment.version)
        if len(read) <= races_lost:  # another connection, whose change is committed before this one's is sent
            rows.execute("UPDATE payments SET version = version + 1 WHERE id = :id", id=payment_id)
        payment.receipt_url = "https://example.com/receipt"

    with app.app_context():
        if races_lost < ATTEMPTS:
            change()
        else:
            with pytest.raises(VersionConflict) as lost:
                change()
            assert lost.value.is_retryable

    assert read == list(range(min(races_lost + 1, ATTEMPTS)))
    kept = rows.one("SELECT version, receipt_url FROM payments")
    if races_lost < ATTEMPTS:
        assert kept == {"version": races_lost + 1, "receipt_url": "https://example.com/receipt"}
    else:
        assert kept == {"version": ATTEMPTS, "receipt_url": None}


def test_what_was_read_before_is_where_the_first_attempt_begins_and_no_other(
    app: Flask, people: People, rows: Rows
) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    begun_from: list[int] = []

    @read_transaction
    def read(session: Session) -> Payment:
        return session.get_one(Payment, payment_id)

    @write_transaction
    def change(session: Session, before: FirstAttempt[Payment]) -> None:
        payment = before.take()
        if payment is None:
            payment = session.get_one(Payment, payment_id)
        else:
            session.add(payment)
        begun_from.append(payment.version)
        payment.receipt_url = "https://example.com/receipt"

    with app.app_context():
        before = FirstAttempt(read())
        rows.execute("UPDATE payments SET version = version + 1 WHERE id = :id", id=payment_id)
        change(before)

    assert begun_from == [0, 1]
    assert rows.one("SELECT version, receipt_url FROM payments") == {
        "version": 2, "receipt_url": "https://example.com/receipt",
    }  # fmt: skip


@on_sqlite
def test_on_sqlite_nobody_changes_what_a_writer_has_read(app: Flask, people: People, rows: Rows) -> None:
    """There the write lock is taken before the first read: a version cannot be lost at all."""
    payment_id = people.patient.pay().json["data"]["payment_id"]
    refused: list[str] = []

    @write_transaction
    def change(session: Session) -> None:
        payment = session.get_one(Payment, payment_id)
        with pytest.raises(sqlite3.OperationalError) as refusal, sqlite_connection(app) as racer:
            racer.execute("UPDATE payments SET version = version + 1")
        refused.append(refusal.value.sqlite_errorname)
        payment.receipt_url = "https://example.com/receipt"

    with app.app_context():
        change()

    assert refused == ["SQLITE_BUSY"]
    assert rows.one("SELECT version FROM payments") == {"version": 1}


@on_postgresql
def test_a_confirm_that_loses_every_race_is_409_changes_nothing_and_may_be_sent_again(
    people: People, rows: Rows
) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    before = rows.counts(*MADE_TOGETHER)
    races: list[int] = []

    def race(session: Session, *_: Any) -> None:
        if any(isinstance(changed, Payment) for changed in session.dirty):
            races.append(payment_id)
            rows.execute("UPDATE payments SET version = version + 1 WHERE id = :id", id=payment_id)

    event.listen(Session, "before_flush", race)
    try:
        lost = people.patient.confirm(payment_id, key="the-key")
    finally:
        event.remove(Session, "before_flush", race)

    assert lost.status_code == 409
    assert lost.json["type"].endswith("/version-conflict")
    assert lost.json["retryable"] is True
    assert len(races) == ATTEMPTS
    assert rows.counts(*MADE_TOGETHER) == before
    assert rows.one("SELECT status, version, received_minor FROM payments") == {
        "status": "pending", "version": ATTEMPTS, "received_minor": 0,
    }  # fmt: skip

    won = people.patient.confirm(payment_id, key="the-key")
    assert won.status_code == 200
    assert "Idempotent-Replayed" not in won.headers
    assert rows.count("payment_events", "to_status = 'completed'") == 1


# Locks that somebody holds


@contextmanager
def sqlite_connection(app: Flask) -> Iterator[sqlite3.Connection]:
    """A connection that waits for nobody."""
    path = engine_of(app).url.database
    assert path is not None
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


@on_sqlite
def test_on_sqlite_a_commit_is_on_the_disk_before_it_is_answered(app: Flask) -> None:
    with engine_of(app).connect() as connection:
        journal, synchronous = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        )

    assert (journal, synchronous) == ("wal", SYNCHRONOUS_FULL)


@on_sqlite
def test_a_write_lock_held_all_the_time_is_503_and_held_no_longer_is_201(
    database: Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("payments_app.db.engine.SQLITE_BUSY_TIMEOUT_SECONDS", 0.02)
    monkeypatch.setattr("payments_app.db.transaction.LOCK_PATIENCE_SECONDS", 0.2)
    with (
        app_with(database.url) as impatient,
        sqlite_connection(impatient) as holder,
        engine_on(database.url) as engine,
    ):
        patient, rows = as_served_by(impatient, people.patient), Rows(engine)
        holder.execute("BEGIN IMMEDIATE")

        with errors_of(engine_of(impatient)) as errors:
            assert_503(patient.pay(5, key="the-key"), "database-busy")
        assert set(errors) == {"SQLITE_BUSY"}
        assert len(errors) > 1  # patience is counted in seconds, not in attempts
        with impatient.app_context(), pytest.raises(DatabaseBusy):
            write_transaction(lambda session: session.execute(text("SELECT 1")))()
        assert patient.get("/payments").status_code == 200  # who reads does not wait for who writes
        assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 0)

        holder.execute("ROLLBACK")
        assert patient.pay(5, key="the-key").status_code == 201
        assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)


@on_sqlite
def test_a_write_lock_given_back_between_two_attempts_is_not_noticed(
    database: Database, people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("payments_app.db.engine.SQLITE_BUSY_TIMEOUT_SECONDS", 0.02)
    with app_with(database.url) as impatient, sqlite_connection(impatient) as holder:
        holder.execute("BEGIN IMMEDIATE")

        def give_back(_error: Any) -> None:
            holder.execute("ROLLBACK")

        event.listen(engine_of(impatient), "handle_error", give_back, once=True)

        assert as_served_by(impatient, people.patient).pay().status_code == 201

    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)


@on_postgresql
def test_a_row_that_somebody_keeps_locked_is_503_and_locked_no_longer_is_200(
    database: Database, engine: Engine, people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("payments_app.db.engine.LOCK_TIMEOUT_MS", 20)
    monkeypatch.setattr("payments_app.db.transaction.LOCK_PATIENCE_SECONDS", 0.2)
    payment_id = people.patient.pay().json["data"]["payment_id"]
    with app_with(database.url) as impatient, engine.connect() as holder:
        patient = as_served_by(impatient, people.patient)
        holder.execute(text("SELECT 1 FROM payments FOR UPDATE"))

        with errors_of(engine_of(impatient)) as errors:
            assert_503(patient.confirm(payment_id, key="the-key"), "database-busy")
        assert set(errors) == {"55P03"}
        assert len(errors) > 1  # patience is counted in seconds, not in attempts
        assert patient.get(f"/payments/{payment_id}").json["data"]["status"] == "pending"

        event.listen(engine_of(impatient), "handle_error", lambda _: holder.rollback(), once=True)
        assert patient.confirm(payment_id, key="the-key").status_code == 200
    assert rows.count("payment_events", "to_status = 'completed'") == 1


@on_postgresql
def test_a_statement_that_takes_too_long_is_cut_off(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payments_app.db.engine.STATEMENT_TIMEOUT_MS", 500)  # longer than connecting takes
    with app_with(database.url) as impatient, impatient.app_context(), errors_of(engine_of(impatient)) as errors:
        for transaction in (read_transaction, write_transaction):
            with pytest.raises(DatabaseUnavailable):
                transaction(lambda session: session.execute(text(f"SELECT pg_sleep({PATIENCE_SECONDS})")))()

    assert errors == ["57014", "57014"]


def test_when_all_connections_are_taken_the_answer_is_503_and_nobody_waits_for_ever(
    database: Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("payments_app.db.engine.POOL_TIMEOUT_SECONDS", 0.02)
    with app_with(database.url) as crowded:
        patient = as_served_by(crowded, people.patient)
        assert patient.pay(4).status_code == 201  # it has been found ready, which stands for a while
        taken = list(all_connections(engine_of(crowded)))

        assert_503(patient.pay(5, key="the-key"), "database-busy")
        assert_503(patient.get("/payments"), "database-busy")

        for connection in taken:
            connection.close()
        assert patient.pay(5, key="the-key").status_code == 201


def all_connections(engine: Engine) -> Iterator[Any]:
    while True:
        try:
            yield engine.raw_connection()
        except PoolTimeout:
            return


# What is not a race


def test_an_error_that_no_other_attempt_would_cure_is_raised_at_once_as_it_is(app: Flask, engine: Engine) -> None:
    attempts: list[int] = []

    def mistaken(session: Session) -> None:
        attempts.append(1)
        session.execute(text("SELEKT 1"))

    with app.app_context():
        for transaction in (read_transaction, write_transaction):
            with pytest.raises(DBAPIError):
                transaction(mistaken)()

    assert len(attempts) == 2
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # both databases have a QueuePool


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("error", [PaymentNotFound(), ValueError("a bug")])
def test_whatever_is_raised_undoes_what_was_written_and_is_not_tried_again(
    error: Exception, app: Flask, engine: Engine, rows: Rows
) -> None:
    attempts: list[int] = []

    @write_transaction
    def change_and_fail(session: Session) -> None:
        attempts.append(1)
        session.execute(text("UPDATE consultations SET fee_minor = 1"))
        raise error

    with app.app_context(), pytest.raises(type(error)):
        change_and_fail()

    assert attempts == [1]
    assert rows.count("consultations", "fee_minor = 1") == 0
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_what_the_url_says_of_a_session_is_kept_beside_our_timeouts(databases: Callable[[str], Database]) -> None:
    options = "-c work_mem=7MB -c statement_timeout=0"
    url = make_url(databases("postgresql").url).update_query_dict({"options": options})

    with app_with(url.render_as_string(hide_password=False)) as app, engine_of(app).connect() as connection:
        shown = [connection.scalar(text(f"SHOW {name}")) for name in ("work_mem", "statement_timeout")]

    assert shown == ["7MB", "5s"]


# The database away


def test_while_postgresql_is_down_every_answer_is_503_and_once_it_is_back_all_goes_on() -> None:
    with own_postgresql() as server, app_with(server.url) as app, engine_on(server.url) as engine:
        people = People(app)
        people.add_consultations(Role.PATIENT, 1, 9)
        patient, rows = people.patient, Rows(engine)
        payment_id = patient.pay(1, key="before").json["data"]["payment_id"]

        server.stop()
        for ask in every_kind_of_request(people, payment_id):
            assert_503(ask(), "database-unavailable")
        with app.app_context(), pytest.raises(DatabaseUnavailable):
            read_transaction(lambda session: session.execute(text("SELECT 1")))()
        server.start()

        # The very first that come, and with the keys of those that failed.
        assert patient.pay(2, key="during").status_code == 201
        assert patient.pay(1, key="before").headers["Idempotent-Replayed"] == "true"
        assert patient.confirm(payment_id, key="confirm-during").status_code == 200
        assert rows.count("payments") == rows.count("idempotency_keys", "operation = 'create'") == 2

        # A restart between two requests is not noticed: the pool's dead connections cost an attempt, no answer.
        for after_restart in (
            lambda: patient.get("/payments"),
            lambda: patient.pay(3, key="after"),
            lambda: people.anonymous().post("/api/login", json={"email": patient.email, "password": PASSWORD}),
        ):
            server.stop()
            server.start()
            assert after_restart().status_code in (200, 201)
        assert rows.count("payments", "consultation_id = 3") == 1
        assert engine_of(app).pool.checkedout() == 0  # type: ignore[attr-defined]


def every_kind_of_request(people: People, payment_id: int) -> list[Callable[[], ApiResponse]]:
    """All that need the database, each of which would succeed."""
    patient, admin = people.patient, people.admin
    return [
        lambda: people.anonymous().post("/api/login", json={"email": patient.email, "password": PASSWORD}),
        lambda: patient.get("/me"),
        lambda: patient.get("/consultations"),
        lambda: patient.get("/consultations/1"),
        lambda: people.booking.put("/consultations/9", {"patient_id": patient.id}),
        lambda: patient.pay(2, key="during"),
        lambda: patient.get("/payments"),
        lambda: admin.get("/payments"),
        lambda: patient.get(f"/payments/{payment_id}"),
        lambda: patient.get(f"/payments/{payment_id}/events"),
        lambda: patient.confirm(payment_id, key="confirm-during"),
        lambda: admin.post(f"/payments/{payment_id}/cancel"),
    ]


def test_an_app_that_starts_before_its_database_answers_503(people: People) -> None:
    with app_with("postgresql+psycopg://postgres@127.0.0.1:1/nowhere") as app:
        patient = as_served_by(app, people.patient)

        assert_503(patient.pay(), "not-ready")
        assert_503(patient.get("/me"), "database-unavailable")


def test_a_sqlite_file_that_is_not_there_is_503_until_it_is() -> None:
    with fresh_database("sqlite") as database, app_with(database.url) as app:
        people = People(app)
        people.add_consultations(Role.PATIENT, 1, 9)
        file = make_url(database.url).database
        assert file is not None
        engine_of(app).dispose()  # or else open files would outlive their folder's move
        folder = Path(file).parent

        elsewhere = folder.rename(folder.with_name(f"{folder.name}-elsewhere"))
        assert_503(people.patient.pay(5, key="the-key"), "not-ready")
        assert_503(people.patient.get("/payments"), "database-unavailable")

        elsewhere.rename(folder)
        assert people.patient.pay(5, key="the-key").status_code == 201


@on_postgresql
@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("transaction", [read_transaction, write_transaction])
def test_a_connection_cut_in_mid_transaction_costs_an_attempt_and_has_no_effect(
    transaction: Any, app: Flask, rows: Rows
) -> None:
    backends: list[int] = []

    def ask(session: Session) -> None:
        backends.append(session.scalar(text("SELECT pg_backend_pid()")))
        if transaction is write_transaction:
            session.execute(text("UPDATE consultations SET fee_minor = coalesce(fee_minor, 0) + 1"))
        if len(backends) == 1:
            rows.one("SELECT pg_terminate_backend(:pid)", pid=backends[0])
        session.execute(text("SELECT 1"))

    with app.app_context():
        transaction(ask)()

    assert len(backends) == len(set(backends)) == 2
    fee = 1 if transaction is write_transaction else None
    assert {row["fee_minor"] for row in rows.all("SELECT fee_minor FROM consultations")} == {fee}


@on_postgresql
@pytest.mark.parametrize("replay", ["same", "conflict"])
def test_a_create_whose_commit_was_not_heard_of_is_no_replay(
    replay: str, people: People, rows: Rows, database: Database
) -> None:
    """Its second attempt finds the key that the first has committed; to the client it is the first answer."""
    sent: list[str] = []

    def lose_the_first(_engine: Engine, statement: str, _values: Sequence[Any]) -> None:
        sent.append(statement)
        if len(sent) == 1:
            raise OperationalError(None, None, psycopg.OperationalError(), connection_invalidated=True)

    with app_with(database.url, IDEMPOTENCY_REPLAY=replay) as other:
        people = people.seen_by(other)
        with lone_statements(before=lambda *_: None, after=lose_the_first):
            answer = people.patient.pay(5, key="the-key")

    assert len(sent) == 2
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers
    assert rows.one("SELECT id FROM payments") == {"id": answer.json["data"]["payment_id"]}


def test_a_database_without_tables_is_503_until_it_is_migrated(people: People) -> None:
    with fresh_database(engine_of(people.app).dialect.name) as unmigrated, app_with(unmigrated.url) as app:
        patient, run = as_served_by(app, people.patient), app.test_cli_runner(catch_exceptions=False)
        assert run.invoke(args=["db", "downgrade", "base"]).exit_code == 0

        assert_503(patient.get("/me"), "not-ready")
        assert_503(patient.pay(), "not-ready")

        assert run.invoke(args=["db", "upgrade"]).exit_code == 0
        assert patient.get("/me").status_code == 401  # nobody is known here yet
        assert patient.pay().status_code == 401


# The last defence

CREATE_INDEX = "CREATE UNIQUE INDEX uq_payments_active_consultation ON payments (consultation_id)"
DROP_INDEX = "DROP INDEX uq_payments_active_consultation"
# As the migrations write it.
PREDICATE = "status IN ('pending', 'processing', 'completed', 'partially_refunded') AND deleted_at IS NULL"


@pytest.fixture(params=DIALECTS)
def own(request: pytest.FixtureRequest) -> Iterator[tuple[People, Rows]]:
    """Everybody, on a database that the test may leave without its guards; and rows read past the app."""
    with fresh_database(request.param) as database, app_with(database.url) as app, engine_on(database.url) as engine:
        people = People(app)
        people.add_consultations(Role.PATIENT, 1, 9)
        yield people, Rows(engine)


@pytest.mark.parametrize(
    "instead",
    [
        None,
        f"{CREATE_INDEX} WHERE {PREDICATE}".replace("UNIQUE ", ""),
        f"{CREATE_INDEX} WHERE {PREDICATE}".replace("(consultation_id)", "(consultation_id, user_id)"),
        f"{CREATE_INDEX} WHERE {PREDICATE}".replace(", 'partially_refunded'", ""),
        f"{CREATE_INDEX} WHERE {PREDICATE} AND gateway <> 'manual'",
    ],
    ids=["dropped", "not-unique", "of-other-columns", "of-fewer-statuses", "of-fewer-gateways"],
)
def test_without_the_index_of_m1_as_it_should_be_no_payment_is_taken(
    instead: str | None, own: tuple[People, Rows]
) -> None:
    people, rows = own
    assert people.patient.pay(1).status_code == 201
    rows.execute(DROP_INDEX)
    if instead is not None:
        rows.execute(instead)
    before = rows.counts(*MADE_TOGETHER)

    assert_503(people.patient.pay(2), "not-ready")
    assert_503(people.patient.pay(1), "not-ready")

    assert rows.counts(*MADE_TOGETHER) == before
    assert people.patient.get("/payments").status_code == 200


def test_once_the_index_of_m1_is_back_payments_are_taken_again_without_a_restart(own: tuple[People, Rows]) -> None:
    people, rows = own
    rows.execute(DROP_INDEX)
    assert_503(people.patient.pay(1, key="the-key"), "not-ready")

    rows.execute(f"{CREATE_INDEX} WHERE {PREDICATE}")

    assert people.patient.pay(1, key="the-key").status_code == 201
    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)


def test_with_an_index_of_m1_that_is_invalid_no_payment_is_taken() -> None:
    """What CREATE INDEX CONCURRENTLY leaves when it meets two active payments: there by its name, good for nothing."""
    with fresh_database("postgresql") as database, app_with(database.url) as app, engine_on(database.url) as engine:
        people, rows, raw = People(app), Rows(engine), Raw(engine)
        people.add_consultations(Role.PATIENT, 1, 9)
        rows.execute(DROP_INDEX)
        for _ in range(2):
            raw.payment(people.patient.id, 1)
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            concurrently = f"{CREATE_INDEX} WHERE {PREDICATE}".replace("INDEX", "INDEX CONCURRENTLY")
            with pytest.raises(IntegrityError):
                connection.execute(text(concurrently))
        assert rows.count("pg_index", "NOT indisvalid") == 1
        before = rows.counts(*MADE_TOGETHER)

        assert_503(people.patient.pay(2), "not-ready")

        assert rows.counts(*MADE_TOGETHER) == before


# Ids


def test_threads_of_two_apps_never_get_the_same_id(database: Database) -> None:
    count, threads = 2 * BLOCK_SIZE + 1, 8
    start = threading.Barrier(threads)

    def take(from_app: Flask) -> list[int]:
        with from_app.app_context():
            start.wait(PATIENCE_SECONDS)
            return [next_id("payments") for _ in range(count)]

    with app_with(database.url) as one, app_with(database.url) as other, ThreadPoolExecutor(threads) as pool:
        work = [pool.submit(take, from_app) for from_app in (one, other) * (threads // 2)]
        taken = [payment_id for done in work for payment_id in done.result()]

    assert len(taken) == len(set(taken)) == threads * count
    assert min(taken) > 0


@long_on_sqlite
def test_processes_and_their_forks_never_get_the_same_id(database: Database, app: Flask, tmp_path: Path) -> None:
    count, gate, outputs = 2 * BLOCK_SIZE + 1, tmp_path / "gate", [tmp_path / "one", tmp_path / "other"]
    environment = {**os.environ, "APP_ENV": "testing", "DATABASE_URL": database.url}
    arguments = ("tests.support.id_allocator_process", str(count), str(gate))
    processes = [start_python(*arguments, environment=environment, output=output) for output in outputs]

    def said() -> str:
        return "\n".join(output.read_text() for output in outputs)

    wait_until(lambda: said().count("ready") == len(outputs), said)
    gate.touch()
    assert [process.wait(PATIENCE_SECONDS) for process in processes] == [0, 0]
    taken: list[int] = [
        payment_id for output in outputs for payment_id in json.loads(output.read_text().splitlines()[-1])
    ]
    with app.app_context():
        taken.append(next_id("payments"))

    assert len(taken) == len(set(taken)) == len(processes) * (1 + 2 * count) + 1


def test_each_table_has_ids_of_its_own(app: Flask, rows: Rows) -> None:
    def starts() -> dict[str, int]:
        return {row["table_name"]: row["next_id"] for row in rows.all("SELECT table_name, next_id FROM id_blocks")}

    before = starts()
    with app.app_context():
        # Each thread of an earlier test may have left the rest of a block.
        taken = [next_id("invoices") for _ in range(20 * BLOCK_SIZE)]
    after = starts()

    assert len(set(taken)) == len(taken)
    assert max(taken) < after["invoices"]
    assert after.pop("invoices") > before.pop("invoices")
    assert after == before


# Nothing stays open


def test_when_an_answer_is_ready_no_connection_is_checked_out_whatever_the_answer(
    app: Flask, engine: Engine, people: People
) -> None:
    patient, other, admin = people.patient, people.other, people.admin
    payment_id = patient.pay(1, key="before").json["data"]["payment_id"]
    second_id = patient.pay(3).json["data"]["payment_id"]
    open_at_the_answer: list[tuple[int, int]] = []

    def look(_sender: Flask, response: Any, **_: Any) -> None:  # before Flask tidies up after the request
        open_at_the_answer.append((response.status_code, engine.pool.checkedout()))  # type: ignore[attr-defined]

    refused: list[tuple[int, Callable[[], ApiResponse]]] = [
        (201, lambda: patient.pay(1, key="before")),
        (409, lambda: patient.pay(1, key="another")),
        (422, lambda: patient.pay(4, key="before")),
        (404, lambda: patient.pay(4_711)),
        (403, lambda: other.pay(4)),
        (404, lambda: patient.get("/payments/4711")),
        (403, lambda: other.get(f"/payments/{payment_id}")),
        (403, lambda: other.confirm(payment_id)),
        (409, lambda: patient.confirm(second_id, "TXN", expected_version=7)),
        (412, lambda: patient.post(f"/payments/{payment_id}/cancel", headers={"If-Match": '"7"'})),
        (422, lambda: patient.get("/payments?per_page=0")),
        (409, lambda: people.booking.put("/consultations/1", {"patient_id": other.id})),
        (422, lambda: people.booking.put("/consultations/1", {"patient_id": 4_711})),
        (401, lambda: people.anonymous().post("/api/login", json={"email": patient.email, "password": "wrong"})),
        (401, lambda: people.anonymous().get("/api/v1/me")),
        (200, lambda: patient.confirm(payment_id, "TXN")),
        (409, lambda: patient.confirm(second_id, "TXN")),
        (409, lambda: admin.post(f"/payments/{payment_id}/cancel")),
    ]
    request_finished.connect(look, app)
    try:
        asked = [ask() for ask in every_kind_of_request(people, second_id)] + [ask() for _, ask in refused]
    finally:
        request_finished.disconnect(look, app)

    assert [answer.status_code for answer in asked[-len(refused) :]] == [status for status, _ in refused]
    assert open_at_the_answer == [(answer.status_code, 0) for answer in asked]
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            in_transaction = "state LIKE 'idle in transaction%' AND datname = current_database()"
            assert connection.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE {in_transaction}")) == 0


def test_what_a_transaction_returned_can_be_read_without_opening_another(
    app: Flask, engine: Engine, people: People
) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]

    @write_transaction
    def change(session: Session) -> Payment:
        payment = session.get_one(Payment, payment_id)
        payment.receipt_url = "https://example.com/receipt"
        return payment

    with app.app_context():
        payment = change()
        assert (payment.id, payment.version, payment.status) == (payment_id, 1, "pending")
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_an_error_that_nobody_knows_stays_itself_and_is_not_its_own_cause(app: Flask) -> None:
    """Its causes are followed when it is logged: a circle would hold the log, and so all threads, for ever."""

    @write_transaction
    def work(session: Session) -> None:
        session.execute(text("SELECT nobody_has_made_this_function()"))

    with app.app_context(), pytest.raises(DBAPIError, match="nobody_has_made_this_function") as raised:
        work()

    assert raised.value.__cause__ is raised.value.orig
