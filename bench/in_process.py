"""Measures the processor time of one request in one process, without a server: for comparing two implementations.

``python -m bench.in_process create replay show list``. Requests go through the WSGI app in small batches, with a real
PostgreSQL. The result is the fastest batch, because other load on the machine only makes a batch slower. To compare two
commits, check them out in two folders and run them in turns.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from itertools import count, repeat

import click
from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from payments_app.accounts.models import Role
from tests.support.apps import app_with
from tests.support.databases import make_postgresql
from tests.support.people import People, Person

BATCHES = 40
# Requests per batch: few enough that some batch runs undisturbed.
REQUESTS = 30
# Requests before the first batch, to fill connections, plans and caches.
WARM_UP = 60
CONSULTATIONS = 2 * (BATCHES + 4) * REQUESTS


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(["create", "replay", "show", "list"]))
def main(kinds: tuple[str, ...]) -> None:
    """Print the milliseconds of processor time per request, of the service only."""
    database = make_postgresql()
    try:
        with app_with(database.url) as app:
            people = People(app)
            people.add_consultations(Role.PATIENT, 1, CONSULTATIONS)
            payment_id = people.patient.pay(1, key="1").json["data"]["payment_id"]
            numbers = count(2)
            for kind in kinds:
                environs = _environs(kind, people.patient, payment_id, numbers)
                click.echo(f"{kind:8} {_least_ms(app, environs):.3f}")
    finally:
        database.close()


def _least_ms(app: Flask, environs: Iterator[dict[str, object]]) -> float:
    _send(app, [next(environs) for _ in range(WARM_UP)])
    return min(_send(app, [next(environs) for _ in range(REQUESTS)]) for _ in range(BATCHES)) / REQUESTS * 1000


def _send(app: Flask, environs: Iterable[dict[str, object]]) -> float:
    """Send the requests; returns seconds of processor time."""
    statuses: set[str] = set()
    started = time.process_time()
    for environ in environs:
        response = app.wsgi_app(environ, lambda status, _headers, _error=None: statuses.add(status))  # type: ignore[arg-type]  # no write() callable: not used
        for _ in response:
            pass
        response.close()  # type: ignore[attr-defined]  # Werkzeug's response has it
    seconds = time.process_time() - started
    if not statuses <= {"200 OK", "201 CREATED"}:
        sys.exit(f"responses were {statuses}")
    return seconds


def _environs(kind: str, person: Person, payment_id: int, numbers: Iterator[int]) -> Iterator[dict[str, object]]:
    paths = {"show": f"/payments/{payment_id}", "list": "/payments"}
    if kind in paths:
        for path in repeat(f"/api/v1{paths[kind]}"):
            yield EnvironBuilder(path, headers=Headers(person.authorization)).get_environ()
    for number in numbers if kind == "create" else repeat(1):
        yield EnvironBuilder(
            "/api/v1/payments",
            method="POST",
            json={"consultation_id": number, "amount": 5000, "payment_method": "stripe"},
            headers=Headers({**person.authorization, "Idempotency-Key": str(number)}),
        ).get_environ()


if __name__ == "__main__":
    main()
