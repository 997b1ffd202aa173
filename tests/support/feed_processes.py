"""Processes that write events, and processes that read the feed, for tests that kill some and compare the others.

Writers take ids from blocks, have clocks that differ, keep transactions open while others commit, and roll some back.
"""

import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from multiprocessing.connection import Connection as Pipe
from typing import Any

from sqlalchemy import Connection, Engine, create_engine

from payments_app.db.base import table_of
from payments_app.events import feed, repository
from payments_app.events.repository import FeedFilter, Position
from payments_app.payments.models.event import PaymentEvent
from tests.support.apps import app_with
from tests.support.raw_rows import MOMENT
from tests.support.waiting import PATIENCE_SECONDS

WRITERS = 4

# As in production: each process takes its ids from a block of its own.
BLOCK = 50

# Seconds by which the writers' clocks differ.
SKEWS = (0, -90, 60, 1)

# Transactions that one writer has open at a time. SQLite has one writer.
OPEN_AT_ONCE = 5

EVENTS = table_of(PaymentEvent)

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.support.kill_points", "tests.support.feed_processes"])


@dataclass(frozen=True)
class SeenEvent:
    """What a reader keeps of an event."""

    position: int
    event_id: int
    payment_id: int
    version: int


class Writers:
    """``WRITERS`` processes, each with payments of its own, which write events."""

    def __init__(self, url: str, payment_ids: list[int], transactions: int, seed: int) -> None:
        """``transactions``: of each writer."""
        self._pipes = []
        for number in range(WRITERS):
            ours, theirs = processes.Pipe()
            work = _Work(url, number, payment_ids[number::WRITERS], transactions, seed + number)
            processes.Process(target=_write, args=(work, theirs), daemon=True).start()
            self._pipes.append(ours)

    def begin(self) -> None:
        """Let all begin at the same moment."""
        for pipe in self._pipes:
            pipe.send("begin")

    def committed(self, patience_seconds: float) -> list[int]:
        """The ids of the events that were committed, once all have ended."""
        assert all(pipe.poll(patience_seconds) for pipe in self._pipes)
        return [event_id for pipe in self._pipes for event_id in pipe.recv()]


@dataclass(frozen=True)
class _Work:
    url: str
    number: int
    payment_ids: list[int]
    transactions: int
    seed: int


def _write(work: _Work, pipe: Pipe) -> None:
    engine = create_engine(work.url, connect_args=_patient(work.url))
    pipe.recv()
    choices = random.Random(work.seed)  # noqa: S311  # no secret depends on it
    pipe.send(_Writer(engine, work.number, work.payment_ids, choices).write(work.transactions))
    engine.dispose()


def _patient(url: str) -> dict[str, int]:
    """SQLite's writers take turns, in no order: none of them may lose its patience."""
    return {"timeout": PATIENCE_SECONDS} if url.startswith("sqlite") else {}


class _Writer:
    def __init__(self, engine: Engine, number: int, payment_ids: list[int], choices: random.Random) -> None:
        self._engine, self._number, self._choices = engine, number, choices
        self._versions = dict.fromkeys(payment_ids, 0)
        self._ids, self._seconds = _ids(number), count(SKEWS[number])
        self._open: list[tuple[Connection, int, list[int]]] = []
        self._committed: list[int] = []

    def write(self, transactions: int) -> list[int]:
        at_once = 1 if self._engine.dialect.name == "sqlite" else OPEN_AT_ONCE
        for _ in range(transactions):
            if len(self._open) == at_once:
                self._end(self._choices.randrange(at_once))
            self._begin()
        while self._open:
            self._end(self._choices.randrange(len(self._open)))
        return self._committed

    def _begin(self) -> None:
        """A change of a payment and one or two events of it, as the service makes them: under the payment's lock."""
        taken = {payment_id for _, payment_id, _ in self._open}
        payment_id = self._choices.choice([each for each in self._versions if each not in taken])
        rows: list[dict[str, Any]] = [
            {
                "id": next(self._ids),
                "payment_id": payment_id,
                "event": "payment.reviewed",
                "to_status": "pending",
                "version": self._versions[payment_id] + 1,
                "actor": f"writer:{self._number}",
                "created_at": MOMENT + timedelta(seconds=next(self._seconds)),
            }
            for _ in range(self._choices.choice((1, 2)))
        ]
        connection = self._engine.connect()
        connection.execute(EVENTS.insert(), rows)
        self._open.append((connection, payment_id, [row["id"] for row in rows]))

    def _end(self, index: int) -> None:
        connection, payment_id, ids = self._open.pop(index)
        if self._choices.random() < 0.2:
            connection.rollback()
        else:
            connection.commit()
            self._versions[payment_id] += 1
            self._committed += ids
        connection.close()


def _ids(number: int) -> Iterator[int]:
    for block in count():
        first = (block * WRITERS + number) * BLOCK + 1
        yield from range(first, first + BLOCK)


def read_forever(url: str, settings: dict[str, str], place: Position | None, seed: int, pipe: Pipe) -> None:
    """Read the feed from a place on, in pages of any size; send each page that has something, and where it ended."""
    choices = random.Random(seed)  # noqa: S311  # no secret depends on it
    with app_with(url, **settings) as app, app.app_context():
        while True:
            page = feed.read(FeedFilter(after=place, limit=choices.randint(1, 60)), wait_seconds=1)
            place = page.end
            if page.events:
                pipe.send(([seen_event(event) for event in page.events], place))


def seen_event(event: repository.FeedEvent) -> SeenEvent:
    return SeenEvent(event.position, event.id, event.payment_id, event.version)


class Reader:
    """A process that reads the feed and may be killed; the next one goes on after the last page that arrived."""

    def __init__(self, url: str, seed: int, **settings: str) -> None:
        self._url, self._seed, self._settings = url, seed, settings
        self.events: list[SeenEvent] = []
        self.kills = 0
        self._place: Position | None = None
        self._process: Any = None
        self._pipe: Any = None
        self.start()

    def start(self) -> None:
        self._pipe, theirs = processes.Pipe()
        arguments = (self._url, self._settings, self._place, self._seed + self.kills, theirs)
        self._process = processes.Process(target=read_forever, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def take(self, timeout_seconds: float) -> bool:
        """Take in a page, if one comes within the time."""
        if not self._pipe.poll(timeout_seconds):
            return False
        try:
            events, self._place = self._pipe.recv()
        except EOFError:
            raise AssertionError("the reader has ended by itself; its last words are above") from None
        self.events += events
        return True

    def take_until(self, count: int) -> None:
        """Take in pages until it has seen so many events; fails if more come then."""
        while len(self.events) < count:
            assert self.take(PATIENCE_SECONDS), f"it has seen {len(self.events)} of {count} events"
        assert not self.take(0.2)  # it looks for news again after 0.1 s

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.kills += 1

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
