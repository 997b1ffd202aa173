"""Measures the processor time of one request in one process, without a server: for comparing two implementations.

``python -m bench.in_process create replay`` measures some kinds, without a name all. ``--deployed`` adds what
docs/deployment.md has besides PostgreSQL: Redis, with copies of responses, and rate limits. Requests go through the
WSGI app in small batches, with a real PostgreSQL. The result is the fastest batch, because other load on the machine
only makes a batch slower; and the calls of Python functions in one request, which do not depend on the load. To compare
two commits, check them out in two folders and run them in turns.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count, repeat
from types import FrameType
from typing import Any

import click
from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from payments_app.accounts.models import Role
from tests.support.apps import app_with
from tests.support.databases import make_postgresql
from tests.support.people import People, Person
from tests.support.redis_server import RedisServer

BATCHES = 40
# Requests per batch: few enough that some batch runs undisturbed.
REQUESTS = 30
# Requests before the first batch, to fill connections, plans and caches.
WARM_UP = 60
# Payments that each kind may need, each of its own consultation.
PAYMENTS = (BATCHES + 1) * REQUESTS + WARM_UP

Environ = dict[str, Any]


class Requests:
    """Makes the requests of each kind; what a request needs is made before it is measured."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._numbers = count(1)
        self._first = self._new_payment()

    def create(self) -> Iterator[Environ]:
        for number in self._numbers:
            yield _post(self._people.patient, "/payments", _payment_of(number), key=str(number))

    def replay(self) -> Iterator[Environ]:
        return repeat_made(lambda: _post(self._people.patient, "/payments", _payment_of(1), key="1"))

    def show(self) -> Iterator[Environ]:
        return repeat_made(lambda: _get(self._people.patient, f"/payments/{self._first}"))

    def show_to_staff(self) -> Iterator[Environ]:
        return repeat_made(lambda: _get(self._people.admin, f"/payments/{self._first}"))

    def list(self) -> Iterator[Environ]:
        return repeat_made(lambda: _get(self._people.patient, "/payments"))

    def list_100(self) -> Iterator[Environ]:
        return repeat_made(lambda: _get(self._people.admin, "/payments?per_page=100"))

    def consultations(self) -> Iterator[Environ]:
        return repeat_made(lambda: _get(self._people.patient, "/consultations"))

    def checkout(self) -> Iterator[Environ]:
        for payment_id in self._new_payments(method="bank_transfer"):
            yield _post(self._people.patient, f"/payments/{payment_id}/checkout", {})

    def cancel(self) -> Iterator[Environ]:
        for payment_id in self._new_payments():
            yield _post(self._people.patient, f"/payments/{payment_id}/cancel", {})

    def confirm(self) -> Iterator[Environ]:
        for payment_id in self._new_payments():
            yield _post(self._people.admin, f"/payments/{payment_id}/confirm", {"transaction_id": f"T-{payment_id}"})

    def refund(self) -> Iterator[Environ]:
        for payment_id in self._new_payments():
            self._people.admin.confirm(payment_id, f"T-{payment_id}")
            yield _post(self._people.admin, f"/payments/{payment_id}/refund", {"amount": 10})

    def _new_payments(self, method: str = "stripe") -> Iterator[int]:
        while True:
            yield self._new_payment(method)

    def _new_payment(self, method: str = "stripe") -> int:
        number = next(self._numbers)
        answer = self._people.patient.pay(number, key=str(number), payment_method=method)
        payment_id: int = answer.json["data"]["payment_id"]
        return payment_id


KINDS: tuple[str, ...] = (
    "create",
    "replay",
    "show",
    "show_to_staff",
    "list",
    "list_100",
    "consultations",
    "checkout",
    "cancel",
)
KINDS += ("confirm", "refund")


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--deployed", is_flag=True, help="With Redis and rate limits, as docs/deployment.md has it.")
def main(kinds: tuple[str, ...], *, deployed: bool) -> None:
    """Print the milliseconds of processor time and the function calls per request, of the service only."""
    database, redis = make_postgresql(), RedisServer() if deployed else None
    settings = {} if redis is None else {**redis.settings, "RATELIMIT_ENABLED": "true"}
    # High enough that no request is refused.
    limits = {"RATELIMIT_PAYMENTS": "1000000 per minute"}
    try:
        with app_with(database.url, **settings, **limits) as app:
            people = People(app)
            people.add_consultations(Role.PATIENT, 1, len(KINDS) * PAYMENTS)
            requests = Requests(people)
            for kind in kinds or KINDS:
                environs = getattr(requests, kind)()
                click.echo(f"{kind:14} {_least_ms(app, environs):7.3f} ms {_calls(app, environs):6} calls")
    finally:
        database.close()
        if redis is not None:
            redis.close()


def repeat_made(make: Callable[[], Environ]) -> Iterator[Environ]:
    """The same request again and again; an environ can be used once."""
    return (make() for _ in repeat(None))


def _least_ms(app: Flask, environs: Iterator[Environ]) -> float:
    _send(app, [next(environs) for _ in range(WARM_UP)])
    return min(_send(app, [next(environs) for _ in range(REQUESTS)]) for _ in range(BATCHES)) / REQUESTS * 1000


def _calls(app: Flask, environs: Iterator[Environ]) -> int:
    """The calls of Python and C functions of one request; the least of a few, because a pool may grow in one."""
    return min(_calls_of(app, environ) for environ in [next(environs) for _ in range(5)])


def _calls_of(app: Flask, environ: Environ) -> int:
    calls = 0

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        _send(app, [environ])
    finally:
        sys.setprofile(None)
    return calls


def _send(app: Flask, environs: Iterable[Environ]) -> float:
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


def _payment_of(consultation_id: int) -> dict[str, Any]:
    return {"consultation_id": consultation_id, "amount": 5000, "payment_method": "stripe"}


def _get(person: Person, path: str) -> Environ:
    return EnvironBuilder(f"/api/v1{path}", headers=Headers(person.authorization)).get_environ()


def _post(person: Person, path: str, body: dict[str, Any], key: str | None = None) -> Environ:
    headers = Headers({**person.authorization, **({"Idempotency-Key": key} if key else {})})
    return EnvironBuilder(f"/api/v1{path}", method="POST", json=body, headers=headers).get_environ()


if __name__ == "__main__":
    main()
