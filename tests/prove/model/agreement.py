"""The test itself, which each database has in a file of its own: so two workers can share the work."""

from flask import Flask
from hypothesis import Phase

from tests.prove.model.ways import STEPS_PER_WAY, go
from tests.support.fake_stripe import FakeStripe
from tests.support.recorded_figures import note

# On each database, in the short form.
LEAST_STEPS = 1_000
# So much more than other proofs the long form tries.
LONG_FACTOR = 2
# A tenth more: in some steps nothing happens, and some ways end early.
WAYS = LEAST_STEPS * 11 // 10 // STEPS_PER_WAY


def assert_agreement(stripe_app: tuple[FakeStripe, Flask], *, on: str, effort: int, seed: int) -> None:
    times = effort if effort == 1 else LONG_FACTOR * effort
    met = go(stripe_app, ways=WAYS * times, start=seed, phases=(Phase.generate, Phase.shrink))
    assert met["steps"] >= LEAST_STEPS * times
    note(f"model-{on}", seed=seed, **met)
