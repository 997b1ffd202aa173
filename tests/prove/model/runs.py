"""Runs of the state machine on the service and its model.

Each database has a test file of its own, so that two workers can share the work.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from flask import Flask
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.prove.model.machine import PaymentsMachine
from tests.prove.model.records import APPROVAL_ABOVE
from tests.prove.model.service_under_test import ServiceUnderTest
from tests.support.fake_stripe import FakeStripe
from tests.support.recorded_figures import note

STEPS_PER_RUN = 100

# On each database, in the short form.
LEAST_STEPS = 300
# So much more than other proofs the long form tries.
LONG_FACTOR = 6
# One more: in some steps nothing happens, and some runs end early.
RUNS = LEAST_STEPS // STEPS_PER_RUN + 1


def assert_model_agrees(stripe_app: tuple[FakeStripe, Flask], *, on: str, effort: int, seed: int) -> None:
    """Run the machine on one database, as often as the form of the tests asks for."""
    times = effort if effort == 1 else LONG_FACTOR * effort
    met = run_machine(stripe_app, runs=RUNS * times, start=seed, phases=(Phase.generate, Phase.shrink))
    assert met["steps"] >= LEAST_STEPS * times
    note(f"model-{on}", seed=seed, **met)


def run_machine(
    stripe_app: tuple[FakeStripe, Flask], *, runs: int, start: int, phases: Sequence[Phase]
) -> Counter[str]:
    """Do so many runs, and count what happened in them; if service and model differ, the steps to it are printed.

    Each is a run of Hypothesis' own with one example. In one run of many examples, Hypothesis repeats most of them with
    little changed: this finds more if there are few inputs, and less if there are as many as here.
    """
    met: Counter[str] = Counter()

    def machine() -> PaymentsMachine:
        return PaymentsMachine(ServiceUnderTest.emptied(*stripe_app), met)

    _, app = stripe_app
    before = app.config["SETTINGS"]  # of an app that other tests use too
    app.config["SETTINGS"] = replace(before, refund_approval_above_minor=APPROVAL_ABOVE * 100)
    try:
        for number in range(start, start + runs):
            print(f"to replay: PROOF_SEED={number}")  # noqa: T201  # pytest shows it where the test fails
            run_state_machine_as_test(seed(number)(machine), settings=settings_of(phases))  # type: ignore[arg-type]  # takes any factory
    finally:
        app.config["SETTINGS"] = before
    return met


def settings_of(phases: Sequence[Phase]) -> settings:
    return settings(
        max_examples=2,  # the first is the simplest there is, in which nothing happens
        stateful_step_count=STEPS_PER_RUN,
        phases=phases,
        deadline=None,  # it is no measurement
        database=None,  # what is to be replayed is printed
        print_blob=True,
        suppress_health_check=list(HealthCheck),  # they are about time as well
    )
