"""Service, model and gateway agree where patients pay on the gateway's own page, and sessions follow one another."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import Phase
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.prove.model.pages import Pages, PayMongoPages, StripePages
from tests.prove.model.pages_machine import PagesMachine
from tests.prove.model.pages_mutations import PAGES_MUTATIONS, PagesMutation
from tests.prove.model.runs import STEPS_PER_RUN, settings_of
from tests.prove.model.service_under_test import ServiceUnderTest
from tests.support.apps import app_with
from tests.support.databases import Database
from tests.support.dialects import long_on_sqlite
from tests.support.fresh_databases import fresh_database
from tests.support.paymongo_apps import fake_paymongo, paymongo_settings
from tests.support.recorded_figures import note
from tests.support.stripe_apps import fake_stripe, stripe_settings

# On each database and for each gateway, in the short form, and so much more in the long one.
RUNS = 2
LONG_FACTOR = 20
METHODS = {"stripe": "stripe", "paymongo": "gcash"}


@contextmanager
def pages_on(database: Database, name: str) -> Iterator[tuple[Pages, ServiceUnderTest]]:  # type: ignore[type-arg]  # of either
    if name == "stripe":
        hosted = {"STRIPE_CHECKOUT": "hosted", "PUBLIC_URL": "https://pay.example.org"}
        with fake_stripe() as stripe, app_with(database.url, **stripe_settings(stripe, **hosted)) as app:
            yield StripePages(stripe, app), ServiceUnderTest.emptied(stripe, app)
    else:
        with fake_paymongo() as paymongo, app_with(database.url, **paymongo_settings(paymongo)) as app:
            yield PayMongoPages(paymongo, app), ServiceUnderTest.emptied(paymongo, app)


@long_on_sqlite
@pytest.mark.parametrize("gateway", METHODS)
def test_service_model_gateway_and_audit_agree_after_every_step(
    database: Database, gateway: str, effort: int, seed: int
) -> None:
    runs = RUNS if effort == 1 else RUNS * LONG_FACTOR
    met = run_machine(database, gateway, runs=runs, start=seed, phases=(Phase.generate, Phase.shrink))
    assert met["steps"] >= runs * STEPS_PER_RUN // 2
    note(f"model-pages-{gateway}-{database.url.partition(':')[0].partition('+')[0]}", seed=seed, **met)


def run_machine(database: Database, name: str, *, runs: int, start: int, phases: Sequence[Phase]) -> Counter[str]:
    met: Counter[str] = Counter()
    with pages_on(database, name) as (pages, service):

        def machine() -> PagesMachine:
            return PagesMachine(service.emptied(service.fake, service.app), pages, METHODS[name], met)

        for number in range(start, start + runs):
            print(f"to replay: PROOF_SEED={number}")  # noqa: T201  # pytest shows it where the test fails
            run_state_machine_as_test(seeded(number)(machine), settings=settings_of(phases))  # type: ignore[arg-type]  # takes any factory
    return met


@pytest.mark.long
@pytest.mark.parametrize("mutation", PAGES_MUTATIONS, ids=[mutation.__name__ for mutation in PAGES_MUTATIONS])
def test_the_model_of_pages_notices(monkeypatch: pytest.MonkeyPatch, mutation: PagesMutation) -> None:
    mutation(monkeypatch)

    # Rows that are not the model's; or a page that the gateway was never asked for.
    with fresh_database("sqlite") as database, pytest.raises((AssertionError, KeyError)) as parted:
        run_machine(database, PAGES_MUTATIONS[mutation], runs=60, start=1, phases=(Phase.generate,))

    note(f"mutation-{mutation.__name__}", noticed=f"{type(parted.value).__name__}: {parted.value}"[:400])
