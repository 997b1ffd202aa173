"""What one request takes of the processor in one process, without a server: for comparing two ways to do the same.

``python -m bench.in_process create replay show list``. Requests go through the WSGI app in small batches, over a real
PostgreSQL; the least of the batches is told, because whatever else runs on a machine only ever makes one longer. The
batches of two commits are to be taken in turns, in folders beside each other.
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
# Short enough that some batch is not disturbed.
REQUESTS = 30
# Until connections, plans and caches are there.
WARM_UP = 60
CONSULTATIONS = 2 * (BATCHES + 4) * REQUESTS


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(["create", "replay", "show", "list"]))
def main(kinds: tuple[str, ...]) -> None:
    """Tell the milliseconds of the processor that a request takes, in the service alone."""
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
    _ask(app, [next(environs) for _ in range(WARM_UP)])
    return min(_ask(app, [next(environs) for _ in range(REQUESTS)]) for _ in range(BATCHES)) / REQUESTS * 1000


def _ask(app: Flask, environs: Iterable[dict[str, object]]) -> float:
    """Seconds of this process' time."""
    statuses: set[str] = set()
    started = time.process_time()
    for environ in environs:
        answer = app.wsgi_app(environ, lambda status, _headers, _error=None: statuses.add(status))  # type: ignore[arg-type]  # what it would give to write by is not used
        for _ in answer:
            pass
        answer.close()  # type: ignore[attr-defined]  # Werkzeug's has it
    seconds = time.process_time() - started
    if not statuses <= {"200 OK", "201 CREATED"}:
        sys.exit(f"answers were {statuses}")
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
