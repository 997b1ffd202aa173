"""A gateway that takes calls and answers none, in front of a real gunicorn with one worker process.

Its calls wait; everything else goes on.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import quantiles
from typing import NamedTuple

import pytest
import requests

from config import WORKER_THREADS
from payments_app.gateways.registry import PLACES
from tests.support.databases import Database
from tests.support.dialects import on_postgresql
from tests.support.fake_stripe import FakeStripe
from tests.support.people import People
from tests.support.recorded_figures import note
from tests.support.rows import Rows
from tests.support.service import Service, at_once
from tests.support.stripe_apps import fake_stripe, stripe_settings
from tests.support.waiting import PATIENCE_SECONDS

INTENTS = "/v1/payment_intents"

# A single attempt, which lasts until the look-alike lets go of it.
ONE_LONG_ATTEMPT = {"GATEWAY_TIMEOUT": "60", "REFUND_LEASE": "61"}


# One is enough: what waits here waits for no database.
pytestmark = [
    on_postgresql,
    pytest.mark.usefixtures("audited"),
]


class CardService(NamedTuple):
    """The service, its gateway, and the people whose requests it gets."""

    service: Service
    fake: FakeStripe
    people: People

    def create(self, consultation_id: int, method: str = "stripe") -> int:
        body = {"consultation_id": consultation_id, "amount": 5000, "payment_method": method}
        created = self.service.post(self.people.patient, "/payments", body)
        assert created.status_code == 201, created.text
        payment_id: int = created.json()["data"]["payment_id"]
        return payment_id

    def check_out(self, payment_id: int) -> requests.Response:
        """The same key each time."""
        path = f"/payments/{payment_id}/checkout"
        return self.service.post(self.people.patient, path, {}, **{"Idempotency-Key": f"checkout-{payment_id}"})

    def reference_of(self, payment_id: int) -> str:
        """Check out as often as needed, each time after the pause that the service asks for."""
        opened = self.check_out(payment_id)
        while opened.status_code == 503:
            time.sleep(int(opened.headers["Retry-After"]))
            opened = self.check_out(payment_id)
        assert opened.status_code == 200, opened.text
        reference: str = opened.json()["data"]["reference"]
        return reference

    def confirm(self, payment_id: int, transaction_id: str) -> requests.Response:
        body = {"transaction_id": transaction_id}
        return self.service.post(self.people.admin, f"/payments/{payment_id}/confirm", body)

    def get(self, path: str) -> requests.Response:
        headers = self.people.patient.authorization
        return requests.get(f"{self.service.url}{path}", headers=headers, timeout=PATIENCE_SECONDS)

    def metric(self, name: str) -> float:
        (value,) = re.findall(rf"^payments_gateway_{re.escape(name)} (.+)$", self.get("/metrics").text, re.MULTILINE)
        return float(value)

    def everything_else_works(self, consultation_id: int) -> None:
        """Health, lists, and a payment by hand from its creation to the money."""
        assert self.get("/healthz").status_code == self.get("/readyz").status_code == 200
        assert self.get("/api/v1/payments").status_code == 200
        by_hand = self.create(consultation_id, "bank_transfer")
        assert self.check_out(by_hand).status_code == 200
        assert self.confirm(by_hand, f"BPI {by_hand}").status_code == 200


def problem(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition("/")[2]


def test_a_mute_gateway_holds_half_of_the_threads_and_is_called_again_by_itself(
    database: Database, people: People, rows: Rows
) -> None:
    with (
        fake_stripe() as fake,
        Service.started(database.url, 1, **stripe_settings(fake, **ONE_LONG_ATTEMPT)) as service,
        ThreadPoolExecutor(PLACES) as pool,
    ):
        cards = CardService(service, fake, people)
        payments = [cards.create(consultation_id) for consultation_id in range(1, 10)]
        fake.misbehave("hang_before", path=INTENTS, times=None)
        held: list[Future[requests.Response]] = [pool.submit(cards.check_out, it) for it in payments[:PLACES]]
        fake.wait_until_hanging(PLACES)

        fifth = cards.check_out(payments[PLACES])
        others = at_once([lambda it=it: cards.check_out(it) for it in (payments[PLACES:] * WORKER_THREADS)[:24]])  # type: ignore[misc]  # bound now
        cards.everything_else_works(consultation_id=11)

        # All of them were answered while the calls still waited, and were refused before they wrote anything.
        assert not any(call.done() for call in held)
        assert {problem(answer) for answer in (fifth, *others)} == {(503, "gateway-busy")}
        assert int(fifth.headers["Retry-After"]) > 0
        assert cards.metric('calls_in_flight{gateway="stripe"}') == PLACES
        assert cards.metric('refusals_total{gateway="stripe",reason="busy"}') == 1 + len(others)
        assert (fake.count("POST", INTENTS), rows.count("gateway_sessions", "gateway = 'stripe'")) == (PLACES, PLACES)
        assert rows.count("idempotency_keys", "operation = 'checkout'") == 1  # by hand

        fake.release()  # it closes the connections without a word
        assert {problem(call.result()) for call in held} == {(503, "gateway-unavailable")}
        assert problem(cards.check_out(payments[0])) == (503, "gateway-unavailable")
        assert fake.count("POST", INTENTS) == PLACES  # it was not called
        assert cards.get("/readyz").json()["parts"]["stripe"] == "degraded"
        assert cards.metric('breaker_open{gateway="stripe"}') == 1
        cards.everything_else_works(consultation_id=12)

        fake.behave()
        references = [cards.reference_of(it) for it in payments]
        for payment_id, reference in zip(payments, references, strict=True):
            fake.pay(reference)
            assert cards.confirm(payment_id, reference).status_code == 200
        assert cards.get("/readyz").json()["parts"]["stripe"] == "ok"
        assert cards.metric('breaker_open{gateway="stripe"}') == cards.metric('calls_in_flight{gateway="stripe"}') == 0
        assert fake.books().payable == ["succeeded"] * len(payments)
    assert rows.count("payments", "status = 'completed'") == len(payments) + 2


# How long each series of the long form lasts, in seconds: longer than a call with its three attempts (31.5 s).
SERIES_SECONDS = 45

# What one series may take longer than another by chance, in seconds: a few turns of the scheduler, because the clients
# and other tests share the cores. Without places it was 20 s and more.
NOISE_SECONDS = 0.1


@pytest.mark.long
@pytest.mark.parametrize("clients", [8, 28])
def test_a_mute_gateway_slows_nothing_else(database: Database, people: People, clients: int) -> None:
    """With the timeouts of production, and the same clients before and during: they send again every other second."""
    with (
        fake_stripe() as fake,
        Service.started(database.url, 1, **stripe_settings(fake, GATEWAY_TIMEOUT="10", REFUND_LEASE="60")) as service,
    ):
        cards = CardService(service, fake, people)
        people.add_consultations("patient", 1000, 20_000)
        numbers = iter(range(1000, 20_000))
        stop = threading.Event()
        with ThreadPoolExecutor(clients) as pool:
            storm = [pool.submit(check_out_until, stop, cards, cards.create(next(numbers))) for _ in range(clients)]
            before = series(cards, numbers)
            for method in ("POST", "GET"):  # opened, and looked up
                fake.misbehave("hang_before", method=method, path=INTENTS, times=None)
            during = series(cards, numbers)
            stop.set()
            fake.behave()
            fake.release()
            answered = {status for call in storm for status in call.result()}

    figures = {name: {"before": before[name], "during": during[name]} for name in before}
    note(f"mute_gateway_{clients}", seconds=figures, answered=sorted(answered))
    print(figures)  # noqa: T201
    assert answered <= {200, 503}
    for name, p99 in during.items():
        assert p99 <= 2 * before[name] + NOISE_SECONDS, figures


def check_out_until(stop: threading.Event, cards: CardService, payment_id: int) -> set[int]:
    """Check out again and again, after pauses as the service asks for; the statuses."""
    seen = set()
    while not stop.is_set():
        answer = cards.check_out(payment_id)
        seen.add(answer.status_code)
        stop.wait(int(answer.headers.get("Retry-After", 2)))
    return seen


def series(cards: CardService, numbers: Iterator[int]) -> dict[str, float]:
    """The 99th percentile of each kind of request, in seconds."""
    kinds: dict[str, Callable[[], object]] = {
        "healthz": lambda: cards.get("/healthz"),
        "list": lambda: cards.get("/api/v1/payments"),
        "cash": lambda: cards.create(next(numbers), "bank_transfer"),
    }
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    end = time.monotonic() + SERIES_SECONDS
    while time.monotonic() < end:
        for name, ask in kinds.items():
            began = time.monotonic()
            ask()
            taken[name].append(time.monotonic() - began)
    return {
        name: round(quantiles(times, n=100)[-1] if len(times) > 1 else times[0], 4) for name, times in taken.items()
    }
