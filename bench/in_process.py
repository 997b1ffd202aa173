"""Measures the processor time of one request in one process, without a server: for comparing two implementations.

``python -m bench.in_process create replay`` measures some kinds, without a name all. ``--deployed`` adds what
docs/deployment.md has besides PostgreSQL: Redis, with copies of responses, and rate limits. Requests go through the
WSGI app in small batches, the kinds in turns, with a real PostgreSQL. The result is the fastest batch, because other
load on the machine only makes a batch slower; and the calls of Python functions in one request, which do not depend on
the load. To compare two commits, check them out in two folders and run them in turns.
"""

import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count, islice
from types import FrameType
from typing import Any

import click
from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from bench.environment import FIRST_STORED, FIRST_UNPAID, Store, Stored, reference_of
from bench.requests import AMOUNT, PART, paid_event
from payments_app.accounts.models import Role
from tests.support.apps import app_with
from tests.support.databases import make_postgresql
from tests.support.fake_stripe import FakeStripe
from tests.support.people import People, Person
from tests.support.redis_server import RedisServer

# Each has some batches: the difference between rounds shows the noise.
ROUNDS = 4
# Requests per batch: few enough that some batch runs undisturbed.
REQUESTS = 30
# Requests before the first batch, to fill connections, plans and caches.
WARM_UP = 60
# Requests per round whose calls are counted.
COUNTED = 5

Environ = dict[str, Any]
Environs = Generator[Environ, None, None]

# The limits are high enough that no request is refused. Stripe only sends webhooks: nothing asks it.
MEASURED = {
    "RATELIMIT_PAYMENTS": "1000000 per minute",
    "STRIPE_API_KEY": FakeStripe.api_key,
    "STRIPE_WEBHOOK_SECRET": FakeStripe.webhook_secret,
    "STRIPE_CHECKOUT": "elements",
    "PAYMENT_GATEWAYS": "stripe:sandbox",
}


class Requests:
    """Makes the requests of each kind; what a request needs is stored before it is measured."""

    def __init__(self, store: Store, payments: int) -> None:
        """``payments``: how many each kind may need, each of its own consultation."""
        self._payments = payments
        self._store, self._patient, self._admin = store, store.patient, store.admin
        # Of consultations, from ``FIRST_UNPAID``. Each kind that changes payments has a block of them, behind those of
        # the kinds that make them.
        self._numbers, self._blocks = count(), count(1)
        number = next(self._numbers)
        created = self._patient.pay(FIRST_UNPAID + number, key=f"first-{number}")
        self._first: int = created.json["data"]["payment_id"]

    def create(self) -> Environs:
        for number in self._numbers:
            yield _post(self._patient, "/payments", _payment_of(number), key=str(number))

    def replay(self) -> Environs:
        number = next(self._numbers)
        return repeat_made(lambda: _post(self._patient, "/payments", _payment_of(number), key=f"again-{number}"))

    def show(self) -> Environs:
        return repeat_made(lambda: _get(self._patient, f"/payments/{self._first}"))

    def show_to_staff(self) -> Environs:
        return repeat_made(lambda: _get(self._admin, f"/payments/{self._first}"))

    def list(self) -> Environs:
        return repeat_made(lambda: _get(self._patient, "/payments"))

    def list_100(self) -> Environs:
        return repeat_made(lambda: _get(self._admin, "/payments?per_page=100"))

    def consultations(self) -> Environs:
        return repeat_made(lambda: _get(self._patient, "/consultations"))

    def checkout(self) -> Environs:
        for number in self._stored(Stored("bank_transfer", "manual", "pending")):
            yield _post(self._patient, f"/payments/{FIRST_STORED + number}/checkout", {})

    def cancel(self) -> Environs:
        for number in self._stored(Stored("stripe", "sandbox", "pending")):
            yield _post(self._patient, f"/payments/{FIRST_STORED + number}/cancel", {})

    def confirm(self) -> Environs:
        for number in self._stored(Stored("stripe", "sandbox", "pending")):
            payment_id = FIRST_STORED + number
            yield _post(self._admin, f"/payments/{payment_id}/confirm", {"transaction_id": f"T-{payment_id}"})

    def webhook(self) -> Environs:
        """Each completes a payment whose session at Stripe is open."""
        for number in self._stored(Stored("stripe", "stripe", "pending")):
            payment_id = FIRST_STORED + number
            yield _webhook(paid_event(payment_id, FIRST_UNPAID + number, reference_of(payment_id)))

    def refund(self) -> Environs:
        for number in self._stored(Stored("stripe", "sandbox", "completed")):
            yield _post(self._admin, f"/payments/{FIRST_STORED + number}/refund", {"amount": PART})

    def _stored(self, stored: Stored) -> Generator[int, None, None]:
        """The numbers of stored payments, which no other kind uses."""
        first = next(self._blocks) * (self._payments + len(KINDS))
        self._store.fill(stored, self._payments, skip=first)
        yield from range(first, first + self._payments)


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
    "confirm",
    "webhook",
    "refund",
)


@dataclass(frozen=True)
class Cost:
    """One request: milliseconds of processor time, and calls of Python and C functions."""

    ms: float
    calls: int


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--deployed", is_flag=True, help="With Redis and rate limits, as docs/deployment.md has it.")
@click.option("--batches", type=click.IntRange(1), default=10, show_default=True, help="Per kind, in each round.")
def main(kinds: tuple[str, ...], batches: int, *, deployed: bool) -> None:
    """Print the milliseconds of processor time and the function calls per request, of the service only."""
    for kind, costs in measure(kinds or KINDS, batches=batches, deployed=deployed).items():
        least, calls = min(cost.ms for cost in costs), min(cost.calls for cost in costs)
        click.echo(f"{kind:14} {least:7.3f} ms {calls:6} calls")


def measure(
    kinds: Sequence[str], *, batches: int, deployed: bool = False, progress: Callable[[int], None] = lambda _: None
) -> dict[str, list[Cost]]:
    """Measure kinds, batches in turns; returns the costs of each, one for each of the ``ROUNDS``.

    ``batches``: of each kind, in a round. ``progress`` gets the number of kinds after each batch of all.
    """
    with ExitStack() as stack:
        database = make_postgresql()
        stack.callback(database.close)
        settings = {}
        if deployed:
            redis = RedisServer()
            stack.callback(redis.close)
            settings = {**redis.settings, "RATELIMIT_ENABLED": "true"}
        app = stack.enter_context(app_with(database.url, **MEASURED, **settings))
        people = People(app)
        payments = WARM_UP + ROUNDS * (batches * REQUESTS + COUNTED)
        people.add_consultations(Role.PATIENT, FIRST_UNPAID, FIRST_UNPAID + (len(kinds) + 1) * (payments + len(KINDS)))
        requests = Requests(Store(database.url, people.patient, people.admin), payments)
        environs = {kind: stack.enter_context(closing(getattr(requests, kind)())) for kind in kinds}
        for each in environs.values():
            send(app, list(islice(each, WARM_UP)))
        costs: dict[str, list[Cost]] = {kind: [] for kind in kinds}
        for _ in range(ROUNDS):
            for kind, least_ms in _round(app, environs, batches, progress).items():
                costs[kind].append(Cost(least_ms, _calls(app, environs[kind])))
    return costs


def _round(
    app: Flask, environs: Mapping[str, Environs], batches: int, progress: Callable[[int], None]
) -> dict[str, float]:
    """The milliseconds of a request of each kind: the least of some batches."""
    least = dict.fromkeys(environs, float("inf"))
    for _ in range(batches):
        for kind, each in environs.items():
            least[kind] = min(least[kind], send(app, list(islice(each, REQUESTS))) / REQUESTS * 1000)
        progress(len(environs))
    return least


def repeat_made(make: Callable[[], Environ]) -> Environs:
    """The same request again and again; an environ can be used once."""
    while True:
        yield make()


def _calls(app: Flask, environs: Environs) -> int:
    """The calls of Python and C functions of one request; the least of a few, because a pool may grow in one."""
    return min(_calls_of(app, environ) for environ in list(islice(environs, COUNTED)))


def _calls_of(app: Flask, environ: Environ) -> int:
    calls = 0

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        send(app, [environ])
    finally:
        sys.setprofile(None)
    return calls


def send(app: Flask, environs: Iterable[Environ]) -> float:
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


def _payment_of(number: int) -> dict[str, Any]:
    return {"consultation_id": FIRST_UNPAID + number, "amount": AMOUNT, "payment_method": "stripe"}


def _get(person: Person, path: str) -> Environ:
    return EnvironBuilder(f"/api/v1{path}", headers=Headers(person.authorization)).get_environ()


def _post(person: Person, path: str, body: dict[str, Any], key: str | None = None) -> Environ:
    headers = Headers({**person.authorization, **({"Idempotency-Key": key} if key else {})})
    return EnvironBuilder(f"/api/v1{path}", method="POST", json=body, headers=headers).get_environ()


def _webhook(event: bytes) -> Environ:
    headers = Headers({"Content-Type": "application/json", "Stripe-Signature": FakeStripe.sign(event)})
    return EnvironBuilder("/api/v1/webhooks/stripe", method="POST", data=event, headers=headers).get_environ()


if __name__ == "__main__":
    main()
