"""Measures creates beside a reader of the feed and the sender of webhooks: ``python -m bench.feed``.

The same service, with the same load of creates, in rounds: alone, and with a reader that asks again at once, and a
sender whose one endpoint answers at once. Client, service, database, reader, sender and receiver share all cores.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import click
import requests
from sqlalchemy import text

from bench import services
from bench.cases import CLIENTS, MOST_CREATES_A_SECOND, Target
from bench.environment import SECRETS, set_up
from bench.load import send_all
from bench.requests import creates
from payments_app.accounts.system_user import system_caller
from payments_app.webhook_endpoints import repository
from payments_app.webhook_endpoints.repository import NewEndpoint
from tests.support.apps import app_with, engine_of
from tests.support.databases import ROOT
from tests.support.people import Person
from tests.support.receiver import receiving
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Payments that are made before the measurement, so that the sender has begun.
FIRST = 20


@contextmanager
def _reader(url: str, person: Person) -> Iterator[list[int]]:
    """Reads the feed as it grows, in a thread; the list gets the number of events of each page."""
    read: list[int] = []
    ended = threading.Event()

    def read_on() -> None:
        query: dict[str, str | int] = {"limit": 1000, "wait": 1}
        with requests.Session() as session:
            session.headers.update({**person.authorization, "X-Forwarded-Proto": "https"})
            while not ended.is_set():
                page = session.get(f"{url}/api/v1/events", params=query, timeout=PATIENCE_SECONDS).json()
                read.append(len(page["data"]))
                query["after"] = page["meta"]["next_cursor"]

    thread = threading.Thread(target=read_on)
    thread.start()
    try:
        yield read
    finally:
        ended.set()
        thread.join()


@contextmanager
def _sender(database_url: str) -> Iterator[None]:
    # Not in production: there an endpoint has to have a certificate.
    settings = {"APP_ENV": "development", "DATABASE_URL": database_url, "WEBHOOK_ALLOW_PRIVATE": "1"}
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "webhooks", "send"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _add_endpoint(database_url: str, url: str) -> None:
    """In place of the last round's, which goes on behind the positions of events that are no longer there."""
    with app_with(database_url, WEBHOOK_ALLOW_PRIVATE="1", **SECRETS) as app, app.app_context():
        with engine_of(app).begin() as connection:
            connection.execute(text("TRUNCATE webhook_endpoints CASCADE"))
        repository.create(NewEndpoint(url=url, types=["*"]), caller=system_caller())


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="Seconds of each measurement.")
def main(rounds: int, seconds: float) -> None:
    """Print the creates a second alone and beside reader and sender, and the median of their ratios."""
    ratios = []
    with set_up() as environment, receiving() as receiver, services.ours(environment.empty.url) as running:
        target = Target(running, environment.empty, environment.postgresql_pid)
        admin = environment.empty.admin
        patient = environment.empty.patient
        load = creates(patient, round(MOST_CREATES_A_SECOND * seconds), first=FIRST)
        for number in range(rounds):
            environment.empty.clear()
            _, alone = target.send(load, seconds, expected=201)
            environment.empty.clear()
            _add_endpoint(environment.empty.url, receiver.url("/ok"))
            begun = len(receiver.received)
            with _reader(running.url, admin) as read, _sender(environment.empty.url):
                send_all(running, creates(patient, FIRST), clients=CLIENTS)
                wait_until(lambda: len(receiver.received) > begun)  # noqa: B023  # called in this round
                before = len(receiver.received)
                made, beside = target.send(load, seconds, expected=201)
                sent = len(receiver.received) - before
            ratios.append(beside.per_second / alone.per_second)
            click.echo(
                f"round {number + 1}: alone {alone.per_second:.0f} a second, beside reader and sender"
                f" {beside.per_second:.0f} ({made} made, {sum(read)} events read, {sent} sent meanwhile)"
            )
    click.echo(f"creates beside a reader and the sender, of those alone: {median(ratios):.2f}")


if __name__ == "__main__":
    main()
