"""The test itself, which each database has in a file of its own: so two workers can share the work."""

from flask import Flask
from hypothesis import Phase

from tests.prove.model.ways import STEPS_PER_WAY, go
from tests.support.fake_stripe import FakeStripe
from tests.support.figures import note

# On each database, in the short form.
LEAST_STEPS = 2_000
# A tenth more: in some steps nothing happens, and some ways end early.
WAYS = LEAST_STEPS * 11 // 10 // STEPS_PER_WAY


def assert_agreement(shop: tuple[FakeStripe, Flask], *, on: str, effort: int, seed: int) -> None:
    met = go(shop, ways=WAYS * effort, start=seed, phases=(Phase.generate, Phase.shrink))
    assert met["steps"] >= LEAST_STEPS * effort
    note(f"model-{on}", seed=seed, **met)
