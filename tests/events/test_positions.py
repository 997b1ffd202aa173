"""Positions are given after the commit, one process at a time, and nobody waits for it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, Engine, text

from payments_app.db.base import table_of
from payments_app.events import positions
from payments_app.payments.models.event import PaymentEvent
from tests.support.dialects import on_postgresql, on_sqlite
from tests.support.feeds import read_all, read_page
from tests.support.people import People
from tests.support.raw_rows import MOMENT, Raw
from tests.support.rows import Rows
from tests.support.statements import statements_sent
from tests.support.waiting import wait_until

EVENTS = table_of(PaymentEvent)


@contextmanager
def uncommitted_event(engine: Engine, payment_id: int, event_id: int) -> Iterator[Connection]:
    """A transaction that has appended an event, the oldest of all, and commits when the block ends."""
    with engine.connect() as connection, connection.begin():
        connection.execute(
            EVENTS.insert().values(
                id=event_id,
                payment_id=payment_id,
                event="payment.reviewed",
                to_status="pending",
                version=0,
                actor="patient:1",
                created_at=MOMENT,
            )
        )
        yield connection


@on_postgresql
def test_an_event_that_commits_late_comes_last(people: People, engine: Engine) -> None:
    """Although it has the smallest id and the oldest time."""
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    with uncommitted_event(engine, payment_id, 1_000):
        people.patient.pay(6)
        before, cursor, _ = read_page(people.admin)
    after, _, _ = read_page(people.admin, cursor)

    assert [event["position"] for event in before] == [1, 2]
    assert [(event["position"], event["id"]) for event in after] == [(3, 1_000)]


@on_postgresql
def test_a_reader_goes_without_while_another_gives_them(people: People, engine: Engine) -> None:
    people.patient.pay(5)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": positions._LOCK})
        events, cursor, has_more = read_page(people.admin)
    assert (events, has_more) == ([], True)

    assert len(read_all(people.admin, cursor)) == 1


@on_postgresql
def test_a_reader_who_may_wait_waits_for_another_that_gives_them(people: People, engine: Engine) -> None:
    """A page that is empty only because of the other one is not an answer at once, to be asked for again at once."""
    people.patient.pay(5)
    waits = people.app.extensions["feed waits"]
    with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
        with connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": positions._LOCK})
            reader = pool.submit(read_page, people.admin, wait=20)
            wait_until(lambda: waits._value < 2)
        events, _, _ = reader.result()

    assert [event["position"] for event in events] == [1]


def test_a_reader_who_has_far_to_go_gives_none(people: People, rows: Rows) -> None:
    """A full page needs no write: neither of SQLite's one lock, nor of PostgreSQL's time."""
    for consultation_id in (5, 6, 7):
        people.patient.pay(consultation_id)
    read_all(people.admin)
    people.patient.pay(8)
    read_page(people.admin, limit=2)
    assert rows.count("payment_events", "position IS NULL") == 1

    assert len(read_all(people.admin, limit=2)) == 4


@on_sqlite
def test_a_reader_goes_without_while_sqlite_is_busy(people: People, engine: Engine) -> None:
    people.patient.pay(5)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))  # with it the transaction takes the write lock
        events, cursor, has_more = read_page(people.admin)
        connection.rollback()
    assert (events, has_more) == ([], True)

    assert len(read_all(people.admin, cursor)) == 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_batch_leaves_out_no_earlier_event_of_a_payment(
    people: People, app: Flask, engine: Engine, rows: Rows, size: int
) -> None:
    """Version 0 has the newest time: a batch of the oldest events takes it along."""
    raw = Raw(engine)
    payment_id = raw.payment(people.patient.id, 5, version=3)
    for version, second in ((0, 59), (1, 1), (2, 2), (3, 3)):
        raw.event(payment_id, version=version, created_at=MOMENT.replace(second=second))
    with app.app_context():
        while positions.is_any_waiting():
            positions._give(size)

    placed = rows.all("SELECT version, position FROM payment_events ORDER BY position")
    assert [row["version"] for row in placed] == [0, 1, 2, 3]
    assert [row["position"] for row in placed] == [1, 2, 3, 4]


def test_all_events_get_one_however_many(people: People, engine: Engine, rows: Rows) -> None:
    first = add_events(engine, people, 2_500)

    feed = read_all(people.admin, limit=400)
    assert [event["position"] for event in feed] == list(range(1, 2_501))
    assert [event["id"] for event in feed] == [first + number for number in range(2_500)]
    assert rows.count("payment_events") == 2_500


@on_postgresql
def test_statistics_of_a_time_with_few_events_make_no_batch_slow(app: Flask, people: People, engine: Engine) -> None:
    """PostgreSQL then expects one event, and evaluated a part of the statement anew for each of the 2,500."""
    events = 2_500

    def analyze() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE payment_events"))

    add_events(engine, people, events, after_the_first=analyze)
    with app.app_context(), statements_sent(engine) as sent:
        positions.give_batch()
        statement, parameters = next((sql, given) for sql, given in sent if "UPDATE payment_events" in sql)
    with engine.connect() as connection:
        (explained,) = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).one()

    assert max(loops_of(explained[0]["Plan"])) <= events


def add_events(
    engine: Engine, people: People, events: int, *, after_the_first: Callable[[], None] = lambda: None
) -> int:
    """Add events of one payment that wait for a position; returns the id of the first."""
    raw = Raw(engine)
    payment_id = raw.payment(people.patient.id, 5)
    first = raw.event(payment_id)
    after_the_first()
    with engine.begin() as connection:
        connection.execute(
            EVENTS.insert(),
            [
                {
                    "id": first + number,
                    "payment_id": payment_id,
                    "event": "payment.reviewed",
                    "to_status": "pending",
                    "version": number // 2,
                    "actor": "patient:1",
                    "created_at": MOMENT,
                }
                for number in range(1, events)
            ],
        )
    return first


def loops_of(plan: dict[str, Any]) -> Iterator[int]:
    """How often each part of a plan was evaluated."""
    yield plan["Actual Loops"]
    for part in plan.get("Plans", ()):
        yield from loops_of(part)
