"""Gateways' places and breakers: some for adapters that no app has made, and apps whose gateways refuse."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from flask import Flask

from payments_app.gateways.admission import OPENS_AFTER, Admission, Places
from payments_app.gateways.registry import PLACES

Adapter = TypeVar("Adapter")


def admission_to(gateway: str) -> Admission:
    """All places of a process, for an adapter by itself."""
    return Admission(gateway, Places(PLACES))


def admission_of(app: Flask) -> Admission:
    """That of the app's only gateway that is called over the network."""
    (admission,) = app.extensions["gateway_admissions"].values()
    assert isinstance(admission, Admission)
    return admission


def call_however_silent(app: Flask) -> None:
    """Keep the breaker closed, for a test in which the gateway is silent more often than a breaker allows."""
    admission_of(app)._breaker._opens_after = sys.maxsize


def patient_with_silence(gateway: Adapter) -> Adapter:
    """The same for an adapter that no app has made."""
    gateway._admission._breaker._opens_after = sys.maxsize  # type: ignore[attr-defined]  # of adapters that call
    return gateway


@contextmanager
def all_places_taken(app: Flask) -> Iterator[None]:
    """As by other requests that are in calls to the gateway."""
    admission = admission_of(app)
    taken = 0
    while admission._places.take(admission._gateway):
        taken += 1
    assert taken == PLACES
    yield
    for _ in range(taken):
        admission._places.give_back(admission._gateway)


@contextmanager
def breaker_open(app: Flask) -> Iterator[None]:
    """As after calls of other requests that the gateway did not answer; at the end it has answered one."""
    breaker = admission_of(app)._breaker
    cool_down_seconds, breaker._cool_down_seconds = breaker._cool_down_seconds, 3600
    for _ in range(OPENS_AFTER):
        breaker.failed(TimeoutError())
    yield
    breaker._cool_down_seconds = cool_down_seconds
    breaker.succeeded()
