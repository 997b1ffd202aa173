"""Operations that race for one payment, in every order of their steps, end where some serial order of them does.

A step is a statement, a commit or a call to the gateway. Where an order fails, it is named: ``SCHEDULE=ABBA`` in the
environment, with ``-k`` and the name of the case, repeats just that one, letter by letter of whose step it was.
``PROOF_SEED`` repeats what was chosen at random.
"""

import os
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine

from tests.prove.interleavings import cases
from tests.prove.interleavings.cases import PAIRS, TRIPLES, Prepare
from tests.prove.interleavings.explore import Race
from tests.support.apps import engine_of
from tests.support.databases import Database
from tests.support.recorded_figures import note
from tests.support.schedules import Repeated, Stage
from tests.support.snapshots import Snapshot, stripe_app_on_empty
from tests.support.stripe_apps import StripeApp

# Those with few enough orders that trying all of them takes a second or two each.
ALL_OF = [
    cases.twin_creates,
    cases.creates_of_one_key,
    cases.create_and_close,
    cases.confirm_and_cancel,
]
SOME_OF = [
    cases.creates,
    cases.late_money_and_close,
    cases.confirms,
    cases.confirm_and_expire,
    cases.confirm_and_webhook,
    cases.refunds,
    cases.refund_and_webhook,
    cases.resumes,
    cases.confirm_cancel_and_expire,
    cases.refunds_and_webhook,
]
# Random orders of each of these in a short run: a tenth of a second each.
SOME = 5
# The most orders of one case that a long run tries in turn, a tenth of a second each; where there are more, it goes on
# with so many that are chosen at random.
MOST = 1_500
AND_AT_RANDOM = 500


@pytest.fixture(scope="module")
def shared_stripe_app(databases: Callable[[str], Database]) -> Iterator[StripeApp]:
    with stripe_app_on_empty(databases("postgresql")) as stripe_app:
        yield stripe_app


@pytest.fixture(scope="module")
def stage(shared_stripe_app: StripeApp) -> Iterator[Stage]:
    engine = engine_of(shared_stripe_app.app)
    watching = create_engine(engine.url, isolation_level="AUTOCOMMIT")
    with Stage.on(engine, watching) as stage:
        yield stage
    watching.dispose()


@pytest.fixture(scope="module")
def blank(shared_stripe_app: StripeApp) -> Snapshot:
    """The state before any payment."""
    return Snapshot(shared_stripe_app)


@pytest.fixture
def stripe_app(shared_stripe_app: StripeApp, blank: Snapshot) -> StripeApp:
    blank.put_back()
    return shared_stripe_app


def name_of(prepare: Prepare) -> str:
    return prepare.__name__


def race_of(stripe_app: StripeApp, stage: Stage, prepare: Prepare) -> Race:
    """The case; where one order of it is to be repeated, that alone is tried."""
    race = Race(stripe_app, stage, prepare)
    if schedule := os.environ.get("SCHEDULE"):
        race.check(Repeated(schedule))
        pytest.skip(f"only {schedule} was tried, and it ends as it should")
    return race


@pytest.mark.parametrize("prepare", ALL_OF, ids=name_of)
def test_every_order_of_few_steps_ends_as_a_serial_one(stripe_app: StripeApp, stage: Stage, prepare: Prepare) -> None:
    race = race_of(stripe_app, stage, prepare)
    race.search()
    assert race.tried.is_all
    assert len(race.tried.outcomes) <= len(race.serial)


@pytest.mark.parametrize("prepare", SOME_OF, ids=name_of)
def test_random_orders_end_as_a_serial_one(
    stripe_app: StripeApp, stage: Stage, prepare: Prepare, seed: int, effort: int
) -> None:
    race = race_of(stripe_app, stage, prepare)
    race.wander(SOME * effort, seed)


@pytest.mark.long
@pytest.mark.parametrize("prepare", [*PAIRS, *TRIPLES], ids=name_of)
def test_every_order_ends_as_a_serial_one(stripe_app: StripeApp, stage: Stage, prepare: Prepare, seed: int) -> None:
    race = race_of(stripe_app, stage, prepare)
    race.search(MOST)
    if not race.tried.is_all:
        race.wander(AND_AT_RANDOM, seed)
    tried = race.tried
    note(
        f"interleavings-{race.name}",
        orders=tried.schedules,
        all_of_them=tried.is_all,
        steps=tried.steps,
        outcomes=len(tried.outcomes),
        serial_outcomes=len(race.serial),
        deadlocks=tried.deadlocks,
        begun_again=tried.diverged,
        given_up=tried.given_up,
        seed=None if tried.is_all else seed,
    )
