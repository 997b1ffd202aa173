"""A proof that cannot fail proves nothing: a service with one thing wrong in it parts from the model."""

from collections.abc import Iterator

import pytest
from flask import Flask
from hypothesis import Phase

from tests.prove.model.mutations import SABOTAGES, Sabotage
from tests.prove.model.ways import go
from tests.support.apps import app_with, engine_of
from tests.support.fake_stripe import FakeStripe
from tests.support.fresh_databases import fresh_database
from tests.support.recorded_figures import note
from tests.support.stripe_apps import fake_stripe, stripe_settings

# Most are noticed within a few.
WAYS = 60
SEED = 1


@pytest.fixture
def own_shop() -> Iterator[tuple[FakeStripe, Flask]]:
    """On a database of its own, whose schema may be spoilt."""
    with (
        fresh_database("sqlite") as database,
        fake_stripe() as fake,
        app_with(database.url, **stripe_settings(fake)) as app,
    ):
        yield fake, app


@pytest.mark.long
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=[sabotage.__name__ for sabotage in SABOTAGES])
def test_the_model_notices(
    own_shop: tuple[FakeStripe, Flask], monkeypatch: pytest.MonkeyPatch, sabotage: Sabotage
) -> None:
    sabotage(monkeypatch, engine_of(own_shop[1]))

    # Answers that are not what the model says; or that have not even what it looks at.
    with pytest.raises((AssertionError, KeyError)) as parted:
        go(own_shop, ways=WAYS, start=SEED, phases=(Phase.generate,))

    note(f"sabotage-{sabotage.__name__}", noticed=f"{type(parted.value).__name__}: {parted.value}"[:400])
