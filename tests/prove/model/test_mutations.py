"""A proof that cannot fail proves nothing: a service with one thing wrong in it parts from the model."""

from collections.abc import Iterator

import pytest
from flask import Flask
from hypothesis import Phase

from tests.prove.model.mutations import MUTATIONS, Mutation
from tests.prove.model.runs import run_machine
from tests.support.apps import app_with, engine_of
from tests.support.fake_stripe import FakeStripe
from tests.support.fresh_databases import fresh_database
from tests.support.recorded_figures import note
from tests.support.stripe_apps import fake_stripe, stripe_settings

# Most are noticed within a few.
RUNS = 60
SEED = 1


@pytest.fixture
def own_stripe_app() -> Iterator[tuple[FakeStripe, Flask]]:
    """On a database of its own, whose schema may be spoilt."""
    with (
        fresh_database("sqlite") as database,
        fake_stripe() as fake,
        app_with(database.url, **stripe_settings(fake)) as app,
    ):
        yield fake, app


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.__name__ for mutation in MUTATIONS])
def test_the_model_notices(
    own_stripe_app: tuple[FakeStripe, Flask], monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    mutation(monkeypatch, engine_of(own_stripe_app[1]))

    # Answers that are not what the model says; or that have not even what it looks at.
    with pytest.raises((AssertionError, KeyError)) as parted:
        run_machine(own_stripe_app, runs=RUNS, start=SEED, phases=(Phase.generate,))

    note(f"mutation-{mutation.__name__}", noticed=f"{type(parted.value).__name__}: {parted.value}"[:400])
