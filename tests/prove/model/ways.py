"""How the machine is let loose on the service."""

from collections import Counter
from collections.abc import Sequence

from flask import Flask
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.prove.model.machine import PaymentsMachine
from tests.prove.model.service_under_test import House
from tests.support.fake_stripe import FakeStripe

STEPS_PER_WAY = 100


def go(stripe_app: tuple[FakeStripe, Flask], *, ways: int, start: int, phases: Sequence[Phase]) -> Counter[str]:
    """Go that many ways, and say what was met on them; where service and model part, the steps there are printed.

    Each is a run of its own, because Hypothesis goes most ways of a run again with little changed, which finds more
    where inputs are few, and less where they are as many as here.
    """
    met: Counter[str] = Counter()

    def machine() -> PaymentsMachine:
        return PaymentsMachine(House.emptied(*stripe_app), met)

    for number in range(start, start + ways):
        print(f"to replay: PROOF_SEED={number}")  # noqa: T201  # pytest shows it where the test fails
        run_state_machine_as_test(seed(number)(machine), settings=_settings(phases))  # type: ignore[arg-type]  # takes any factory
    return met


def _settings(phases: Sequence[Phase]) -> settings:
    return settings(
        max_examples=2,  # the first is the simplest there is, in which nothing happens
        stateful_step_count=STEPS_PER_WAY,
        phases=phases,
        deadline=None,  # it is no measurement
        database=None,  # what is to be replayed is printed
        print_blob=True,
        suppress_health_check=list(HealthCheck),  # they are about time as well
    )
