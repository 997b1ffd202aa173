"""A page of the feed, and a batch of positions, cost the same however many events there are and however many wait.

The cost is counted in rows that PostgreSQL reads and in blocks of tables and indexes that it touches, which do not
depend on the machine.
"""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import Engine, text

from payments_app.events import positions, repository
from payments_app.events.repository import FeedFilter, Position
from tests.support.apps import app_with, engine_of
from tests.support.fresh_databases import fresh_database
from tests.support.people import People
from tests.support.recorded_figures import note
from tests.support.statements import statements_sent

# In the long form a million.
EVENTS, MANY_EVENTS = 20_000, 1_000_000
EVENTS_PER_PAYMENT = 4
LIMIT = 50

# Blocks touched, later to earlier: an index of a million entries is one or two levels deeper than one of a thousand.
MOST_GROWTH = 1.5

# Blocks touched for one event of a batch: its row and its payment's are found and the row is written, each by an index
# of three levels, with an entry in each of three indexes; and as much again in reserve.
MOST_BLOCKS_PER_EVENT = 80

_LOAD = """
SET LOCAL session_replication_role = replica;
SET LOCAL statement_timeout = 0;
INSERT INTO consultations (id, patient_id, currency, created_at, updated_at, registered_by)
SELECT 1000 + n, {patient}, 'PHP', now(), now(), CASE WHEN n % 2 = 0 THEN {booking} END
  FROM generate_series(1, {payments}) n;
INSERT INTO payments
       (id, user_id, consultation_id, amount_minor, currency, payment_method, gateway, status,
        received_minor, refund_reserved_minor, refunded_minor, needs_review, version, created_at, updated_at)
SELECT 1000 + n, {patient}, 1000 + n, 500000, 'PHP', 'gcash', 'manual', 'cancelled',
       0, 0, 0, false, {events} / {payments} - 1, now(), now()
  FROM generate_series(1, {payments}) n;
INSERT INTO payment_events (payment_id, event, to_status, version, actor, created_at)
SELECT 1001 + (n - 1) % {payments}, 'payment.reviewed', 'cancelled', (n - 1) / {payments}, 'admin:1',
       timestamptz '2026-01-01' + n * interval '1 second'
  FROM generate_series(1, {events}) n;
"""


@pytest.fixture
def loaded(*, is_long: bool) -> Iterator[tuple[Flask, int]]:
    """An app on events that all wait for a position, of which PostgreSQL has no statistics; and their number."""
    events = MANY_EVENTS if is_long else EVENTS
    with fresh_database("postgresql") as database, app_with(database.url) as app, app.app_context():
        people = People(app)
        sql = _LOAD.format(
            patient=people.patient.id, booking=people.booking.id, events=events, payments=events // EVENTS_PER_PAYMENT
        )
        with engine_of(app).begin() as connection:
            connection.exec_driver_sql(sql)
        yield app, events


def test_a_page_and_a_batch_cost_the_same_at_any_depth(loaded: tuple[Flask, int]) -> None:
    app, events = loaded
    engine = engine_of(app)
    batches = []
    given = 0
    while given < events:
        # Each tenth and the last are counted; explaining gives the positions too.
        if len(batches) == 0 or given % (events // 10) == 0 or events - given <= positions.BATCH_SIZE:
            with statements_sent(engine) as sent, engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                batches.append(blocks(engine, positions._GIVE.text, {"size": 1000, "scratch": "prove-%@proof.invalid"}))
                connection.rollback()
            del sent
        else:
            positions.give_positions()
        given += positions.BATCH_SIZE
