"""Many events for twenty endpoints, of which three hang: the others are not served noticeably later."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe

import pytest
from flask import Flask
from sqlalchemy import Engine

from payments_app.webhook_endpoints.sender import Sender
from tests.support.people import People
from tests.support.raw_rows import Raw
from tests.support.receiver import receiving
from tests.support.recorded_figures import note
from tests.support.rows import Rows
from tests.support.waiting import wait_until
from tests.webhook_endpoints.conftest import Webhooks

ENDPOINTS, HANGING = 20, 3

processes = multiprocessing.get_context("forkserver")


def receive(pipe: Pipe) -> None:
    """A site in a process of its own, so that its work is not the sender's."""
    with receiving() as receiver:
        pipe.send(receiver.url(""))
        pipe.recv()


@contextmanager
def site() -> Iterator[str]:
    ours, theirs = processes.Pipe()
    process = processes.Process(target=receive, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


def seconds_of(app: Flask, rows: Rows, served: list[int], events: int) -> float:
    """How long it takes until these endpoints have all events."""
    ids = ", ".join(map(str, served))
    sender = Sender(app)

    def run() -> None:
        with app.app_context():
            sender.run()

    thread = threading.Thread(target=run)
    began = time.monotonic()
    thread.start()
    delivered = f"status = 'delivered' AND endpoint_id IN ({ids})"
    wait_until(lambda: rows.count("webhook_deliveries", delivered) == events * len(served))
    seconds = time.monotonic() - began
    sender.stop()
    thread.join()
    return seconds


@pytest.mark.long
def test_three_that_hang_slow_down_nobody(
    webhooks: Webhooks, people: People, rows: Rows, engine: Engine, effort: int
) -> None:
    events, raw = (1 if rows.is_sqlite else 5) * effort, Raw(engine)
    payment_id = raw.payment(people.patient.id, 5)
    figures = {}
    with site() as url:
        for hanging in (0, HANGING):
            ids = []
            for number in range(ENDPOINTS):
                path = "hang" if number < hanging else "ok"
                made = people.seen_by(webhooks.app).admin.post("/webhook-endpoints", {"url": f"{url}/{number}/{path}"})
                ids.append(made.json["data"]["id"])
            for version in range(events):
                raw.event(payment_id, version=version)
            figures[hanging] = seconds_of(webhooks.app, rows, ids[hanging:], events) / (ENDPOINTS - hanging)
            for endpoint_id in ids:
                people.admin.send("DELETE", f"/webhook-endpoints/{endpoint_id}")
    note("webhooks", events=events, endpoints=ENDPOINTS, seconds_of_each_endpoint_by_hanging=figures)
    assert figures[HANGING] < 2 * figures[0]
