"""Compares the four locking strategies: ``make bench-locking``. Prints the tables of docs/locking.md.

Every strategy has its own gunicorn (2 processes), on one PostgreSQL and one Redis from wheels, on the machine that also
runs the clients. Each round measures all strategies in turn, so that a noisy minute affects all alike; the tables show
the median round. Times can only be compared with each other.
"""

import http.client
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median, quantiles
from urllib.parse import urlparse

import click

from payments_app.accounts.models import Role
from payments_app.locking.locks import Strategy
from tests.support.apps import app_with
from tests.support.databases import empty, make_postgresql
from tests.support.people import People, Person
from tests.support.redis_server import RedisServer
from tests.support.service import Service

CLICKS = 50
CLIENTS = 8
CONSULTATIONS = 200_000
SECONDS_PER_MEASUREMENT = 3.0

Response = tuple[int, float]  # status, and seconds from the request to the last byte


class Client:
    """One keep-alive connection of one patient."""

    def __init__(self, url: str, person: Person) -> None:
        parts = urlparse(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        self._headers = {**person.authorization, "Content-Type": "application/json"}
        self._connection.connect()

    def pay(self, consultation_id: int, key: str) -> Response:
        body = json.dumps({"consultation_id": consultation_id, "amount": 5000, "payment_method": "stripe"})
        started = time.perf_counter()
        self._connection.request("POST", "/api/v1/payments", body, {**self._headers, "Idempotency-Key": key})
        response = self._connection.getresponse()
        response.read()
        return response.status, time.perf_counter() - started

    def close(self) -> None:
        self._connection.close()


def in_threads(clients: list[Client], work: Callable[[Client], list[Response]]) -> tuple[list[Response], float]:
    """Run ``work`` for all clients at the same moment; returns all responses, and the seconds until the last one."""
    gate = threading.Barrier(len(clients) + 1)
    responses: list[Response] = []

    def run(client: Client) -> None:
        gate.wait()
        responses.extend(work(client))

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return responses, time.perf_counter() - started


def storm(service: Service, person: Person, consultation_id: int) -> tuple[float, float]:
    """Seconds until 50 clicks on one consultation all have a response, and the 99th percentile of a response."""
    clients = [Client(service.url, person) for _ in range(CLICKS)]
    keys = iter(f"storm-{consultation_id}-{n}" for n in range(CLICKS))
    responses, settled = in_threads(clients, lambda client: [client.pay(consultation_id, next(keys))])
    for client in clients:
        client.close()
    statuses = sorted(status for status, _ in responses)
    if statuses != [201, *[409] * (CLICKS - 1)]:
        raise SystemExit(f"a storm ended with {statuses}")
    return settled, quantiles([seconds for _, seconds in responses], n=100)[98]


def creates_per_second(service: Service, person: Person, consultations: Iterator[int]) -> float:
    """Payments of different consultations that 8 clients create per second."""
    return _rate(service, person, lambda client: client.pay(n := next(consultations), f"create-{n}"), expected=201)


def replays_per_second(service: Service, person: Person, key: tuple[int, str]) -> float:
    """Replays of a stored response that 8 clients get per second."""
    return _rate(service, person, lambda client: client.pay(*key), expected=201)


def _rate(service: Service, person: Person, pay: Callable[[Client], Response], *, expected: int) -> float:
    clients = [Client(service.url, person) for _ in range(CLIENTS)]
    ends_at = time.perf_counter() + SECONDS_PER_MEASUREMENT

    def work(client: Client) -> list[Response]:
        responses = []
        while time.perf_counter() < ends_at:
            responses.append(pay(client))
        return responses

    responses, seconds = in_threads(clients, work)
    for client in clients:
        client.close()
    if {status for status, _ in responses} != {expected}:
        raise SystemExit(f"not only {expected}: {sorted({status for status, _ in responses})}")
    return len(responses) / seconds


def row(name: str, values: list[str]) -> str:
    return f"| {name} | {' | '.join(values)} |"


def spread(values: list[float], *, unit: float = 1.0, digits: int = 0) -> str:
    """The median round, and in brackets the lowest and the highest."""
    shown = [f"{value * unit:.{digits}f}" for value in (median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(rounds: int) -> None:
    """Measure storms and throughput of each strategy, with Redis and without."""
    with ExitStack() as stack:
        database = make_postgresql()
        stack.callback(database.close)
        redis_server = RedisServer()
        stack.callback(redis_server.close)
        app = stack.enter_context(app_with(database.url))
        with app.app_context():
            empty(app.extensions["sqlalchemy"].engine)
        people = People(app)
        people.add_consultations(Role.PATIENT, 1, CONSULTATIONS)
        services = {
            str(strategy): stack.enter_context(
                Service.started(database.url, PAYMENT_LOCKING=strategy, REDIS_URL=redis_server.url)
            )
            for strategy in Strategy
        }
        services["optimistic, no Redis configured"] = stack.enter_context(Service.started(database.url))
        measure(services, people.patient, redis_server, rounds)


def measure(services: dict[str, Service], person: Person, redis_server: RedisServer, rounds: int) -> None:
    consultations = itertools.count(1)
    results: dict[tuple[str, str], list[float]] = {}

    def record(name: str, measurement: str, value: float) -> None:
        results.setdefault((name, measurement), []).append(value)

    with click.progressbar(length=rounds * len(services) * 2, label="Measuring", file=sys.stderr) as bar:
        for redis_is in ("up", "down"):
            if redis_is == "down":
                redis_server.kill()
            for _ in range(rounds):
                for name, service in services.items():
                    settled, p99 = storm(service, person, next(consultations))
                    record(name, f"settle {redis_is}", settled)
                    record(name, f"p99 {redis_is}", p99)
                    record(name, f"creates {redis_is}", creates_per_second(service, person, consultations))
                    replayed = next(consultations)
                    Client(service.url, person).pay(replayed, f"replay-{replayed}")
                    record(
                        name,
                        f"replays {redis_is}",
                        replays_per_second(service, person, (replayed, f"replay-{replayed}")),
                    )
                    bar.update(1)
        redis_server.start()

    for redis_is in ("up", "down"):
        click.echo(f"\nRedis {redis_is}; median of {rounds} rounds (lowest to highest)\n")
        columns = ["settle, ms", "p99 of a click, ms", "creates a second", "replays a second"]
        click.echo(row("strategy", columns))
        click.echo(row("---", ["---:"] * len(columns)))
        for name in services:
            click.echo(
                row(
                    name,
                    [
                        spread(results[name, f"settle {redis_is}"], unit=1000),
                        spread(results[name, f"p99 {redis_is}"], unit=1000),
                        spread(results[name, f"creates {redis_is}"]),
                        spread(results[name, f"replays {redis_is}"]),
                    ],
                )
            )


if __name__ == "__main__":
    main()
