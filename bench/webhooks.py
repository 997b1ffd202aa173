"""Measures whether endpoints that hang make the others wait: ``python -m bench.webhooks --events 1000``.

One sender sends events to twenty endpoints twice: first all answer at once, then three of them never answer. The result
is the deliveries a second to the endpoints that answer, until they have every event.
"""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe

import click
from flask import Flask

from payments_app.webhook_endpoints.sender import Sender
from tests.support.apps import app_with, engine_of
from tests.support.databases import make_postgresql
from tests.support.people import People
from tests.support.raw_rows import Raw
from tests.support.receiver import receiving
from tests.support.rows import Rows

ENDPOINTS, HANGING = 20, 3
# Seconds between two looks at the number of deliveries: rare, because each one counts all of them.
PAUSE_SECONDS = 1

processes = multiprocessing.get_context("forkserver")


def _receive(pipe: Pipe) -> None:
    with receiving() as receiver:
        pipe.send(receiver.url(""))
        pipe.recv()


@contextmanager
def _site() -> Iterator[str]:
    """A site in a process of its own, so that its work is not the sender's."""
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_receive, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


def _seconds_until_served(app: Flask, rows: Rows, served: list[int], events: int) -> float:
    sender = Sender(app)

    def run() -> None:
        with app.app_context():
            sender.run()

    thread = threading.Thread(target=run)
    began = time.monotonic()
    thread.start()
    delivered = f"status = 'delivered' AND endpoint_id IN ({', '.join(map(str, served))})"
    while rows.count("webhook_deliveries", delivered) < events * len(served):
        time.sleep(PAUSE_SECONDS)
    seconds = time.monotonic() - began
    sender.stop()
    thread.join()
    return seconds


def _measured(app: Flask, people: People, raw: Raw, url: str, *, hanging: int, events: int) -> float:
    """Deliveries a second to the endpoints that answer."""
    ids = []
    for number in range(ENDPOINTS):
        path = f"{url}/{hanging}-{number}/{'hang' if number < hanging else 'ok'}"
        ids.append(people.admin.post("/webhook-endpoints", {"url": path}).json["data"]["id"])
    rows = Rows(engine_of(app))
    payment_id = raw.payment(people.patient.id, 5 + hanging)
    for version in range(events):
        raw.event(payment_id, version=version)
    seconds = _seconds_until_served(app, rows, ids[hanging:], events)
    for endpoint_id in ids:
        people.admin.send("DELETE", f"/webhook-endpoints/{endpoint_id}")
    a_second = events * (ENDPOINTS - hanging) / seconds
    click.echo(f"{hanging} of {ENDPOINTS} hang: {events} events in {seconds:.0f} s, {a_second:.0f} deliveries a second")
    return a_second


@click.command()
@click.option("--events", default=500, show_default=True, help="Events for each endpoint, while three hang.")
@click.option("--events-without", default=500, show_default=True, help="Events for each endpoint, while none hangs.")
def main(events: int, events_without: int) -> None:
    """Print the deliveries a second without and with endpoints that hang, and their ratio."""
    database = make_postgresql()
    try:
        with app_with(database.url, WEBHOOK_ALLOW_PRIVATE="1", LOG_LEVEL="ERROR") as app, _site() as url:
            people = People(app, patient=range(5, 5 + HANGING + 1))
            raw = Raw(engine_of(app))
            without, beside = (
                _measured(app, people, raw, url, hanging=hanging, events=number)
                for hanging, number in ((0, events_without), (HANGING, events))
            )
            click.echo(f"deliveries a second beside endpoints that hang, of those without: {beside / without:.2f}")
    finally:
        database.close()


if __name__ == "__main__":
    main()
