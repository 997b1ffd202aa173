"""The whole life of a payment, again and again: create, checkout, webhook, GET, refund; with the tokens at hand."""

import json
import time
from collections.abc import Callable
from itertools import count
from statistics import quantiles
from typing import Any

from bench import load
from bench.cases import CLIENTS, Case, Measurement, Target, require_status, require_statuses
from bench.environment import FIRST_UNPAID, Store
from bench.gateway import Gateway
from bench.load import Script
from bench.requests import checkout, create, key, paid_webhook, refund, show

# Responses to the five requests of one life.
CREATED, OK = 1, 4


def life_case(label: str, target: Target, gateway: Gateway) -> Case:
    """Lives of payments of different consultations, one after the other on each connection."""

    def measure(seconds: float) -> Measurement:
        target.clear()
        gateway.forget()
        lives: list[float] = []
        meter = target.meter()
        script = _script(target.store, lives)
        result = load.send_scripts(target.running, script, clients=CLIENTS, seconds=seconds, begin=meter.begin)
        spent = meter.spent()
        lived = len(lives)
        require_statuses(result, {201: CREATED * lived, 200: OK * lived})
        require_status(target.store, "refunded", lived)
        percentiles = quantiles(lives, n=100)
        cpu_ms = {name: total / lived * 1000 for name, total in spent.items()}
        return Measurement(lived / result.seconds, percentiles[49] * 1000, percentiles[98] * 1000, cpu_ms)

    return Case(label, measure)


def _script(store: Store, lives: list[float]) -> Callable[[float], Script]:
    """Lives until the time is over; a life that has begun is finished. ``lives`` gets the seconds of each."""
    numbers = count()

    def script(ends_at: float) -> Script:
        while (began := time.perf_counter()) < ends_at:
            yield from _life(store, next(numbers))
            lives.append(time.perf_counter() - began)

    return script


def _life(store: Store, number: int) -> Script:
    consultation_id = FIRST_UNPAID + number
    payment_id = _data((yield create(store.patient, consultation_id, key(number))))["payment_id"]
    reference = _data((yield checkout(store.patient, payment_id)))["reference"]
    yield paid_webhook(payment_id, consultation_id, reference)
    yield show(store.patient, payment_id)
    yield refund(store.admin, payment_id)


def _data(body: bytes) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(body)["data"]
    return data
