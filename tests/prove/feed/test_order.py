"""Every committed event is in the feed once, in one order for all readers, whoever is killed meanwhile.

Events commit in another order than that of their ids and times, and some never: the writers are in
``tests/support/feed_processes.py``. ``PROOF_SEED`` repeats their choices and the readers'.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise

import pytest
from flask import Flask
from sqlalchemy import text

from payments_app.events import feed
from payments_app.events.repository import FeedFilter
from payments_app.payments import audit
from tests.prove.feed.conftest import Route
from tests.support.apps import app_with, engine_of
from tests.support.databases import Database, empty, unsynced
from tests.support.feed_processes import WRITERS, Reader, SeenEvent, Writers, seen_event
from tests.support.kill_points import Doomed, points
from tests.support.operations import OperationResult
from tests.support.people import People
from tests.support.raw_rows import MOMENT, Raw
from tests.support.recorded_figures import note
from tests.support.rows import Rows
from tests.support.waiting import PATIENCE_SECONDS

# Of each writer: as many as it has transactions open at a time, and as many again to choose from.
PAYMENTS = 10
# Of each writer in the short form.
TRANSACTIONS = 60
# Of the reader that is killed, in the short form.
KILLS = 1


def test_every_reader_sees_each_committed_event_once_and_in_one_order(route: Route, effort: int, seed: int) -> None:
    choices = random.Random(seed)  # noqa: S311  # no secret depends on it
    with app_with(route.past_pooler) as app:
        writers = Writers(route.past_pooler, payments_of_writers(app), TRANSACTIONS * effort, seed)
    spared, killed = readers = [Reader(route.url, seed + number, **route.settings) for number in range(2)]
    try:
        writers.begin()
        for _ in range(KILLS * effort):
            # At any point of a read: it is not known what it does at this moment.
            for _ in range(choices.randint(0, 2)):
                killed.take(choices.random() / 10)
            killed.kill()
            killed.start()
        committed = writers.committed(PATIENCE_SECONDS * effort)
        for reader in readers:
            reader.take_until(len(committed))
    finally:
        for reader in readers:
            reader.close()

    assert [event.position for event in spared.events] == list(range(1, len(committed) + 1))
    assert sorted(event.event_id for event in spared.events) == sorted(committed)
    assert killed.events == spared.events
    for earlier, later in pairwise(sorted(spared.events, key=lambda event: (event.payment_id, event.position))):
        if earlier.payment_id == later.payment_id:
            assert (earlier.version, earlier.event_id) < (later.version, later.event_id)
    with app_with(route.past_pooler) as app, app.app_context():
        assert read_all(app) == spared.events
        assert [
            found for check in audit.CHECKS if check.invariant == "M10" for found in audit.find_violations(check)
        ] == []
    by_id = sorted(spared.events, key=lambda event: event.event_id)
    note(
        f"feed-order-{route.name}",
        events=len(committed),
        kills=killed.kills,
        not_in_order_of_ids=sum(one.position > two.position for one, two in pairwise(by_id)),
    )


def payments_of_writers(app: Flask) -> list[int]:
    engine = engine_of(app)
    empty(engine)
    with app.app_context():
        people = People(app, patient=range(1, WRITERS * PAYMENTS + 1))
        raw = Raw(engine)
        return [raw.payment(people.patient.id, number) for number in range(1, WRITERS * PAYMENTS + 1)]


def read_all(app: Flask) -> list[SeenEvent]:
    """In pages of the usual size, from the beginning to the present end."""
    events: list[SeenEvent] = []
    with app.app_context():
        page = feed.read(FeedFilter(after=None, limit=100), wait_seconds=0)
        events += map(seen_event, page.events)
        while page.has_more:
            page = feed.read(FeedFilter(after=page.end, limit=100), wait_seconds=0)
            events += map(seen_event, page.events)
    return events


@dataclass(frozen=True)
class Read:
    """A read of the feed from its beginning, which gives positions to what has none."""

    def do(self, app: Flask) -> OperationResult:
        with app.app_context():
            page = feed.read(FeedFilter(after=None, limit=1000), wait_seconds=0)
        seen = [asdict(seen_event(event)) for event in page.events]
        return OperationResult("200", json.dumps(seen), ask_again=page.has_more)


@pytest.fixture(scope="module")
def killing(databases: Callable[[str], Database], dialect: str) -> Iterator[tuple[Flask, Doomed]]:
    database = databases(dialect)
    with app_with(database.url) as app, Doomed.ready(database.url) as doomed:
        yield app, doomed


@pytest.fixture(scope="module", params=["postgresql", pytest.param("sqlite", marks=pytest.mark.long)])
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_a_process_that_is_killed_while_it_gives_positions_gives_all_or_none(killing: tuple[Flask, Doomed]) -> None:
    app, doomed = killing
    payment_ids = payments_of_writers(app)[:3]
    raw, rows, read = Raw(engine_of(app)), Rows(engine_of(app)), Read()
    for version in range(3):
        for payment_id in payment_ids:
            raw.event(payment_id, version=version, created_at=MOMENT.replace(second=9 - version))
    doomed.practise(read)
    expected = positions_in(rows)
    assert [row["position"] for row in expected] == list(range(1, len(expected) + 1))
    take_back(app)
    steps = doomed.watch(read)
    wanted = points(steps, of_sqlite=rows.is_sqlite)
    assert any(step.is_for_good for step in steps)

    for point in wanted:
        take_back(app)
        doomed.kill(read, point)
        assert len(json.loads(read.do(app).body)) == len(expected), point
        assert positions_in(rows) == expected, point
    note(f"feed-kills-{'sqlite' if rows.is_sqlite else 'postgresql'}", steps=len(steps), kills=len(wanted))


def positions_in(rows: Rows) -> list[dict[str, object]]:
    return rows.all("SELECT id, position FROM payment_events ORDER BY position, id")


def take_back(app: Flask) -> None:
    """All positions: as if nobody had read the feed so far."""
    with unsynced(engine_of(app)) as connection:
        connection.execute(text("UPDATE payment_events SET position = NULL, consultation_reference = NULL"))
