"""The same as ``test_interleavings.py``, with PayMongo for the gateway."""

from collections.abc import Callable, Iterator

import pytest

from tests.prove.interleavings import paymongo_cases as cases
from tests.prove.interleavings.explore import SOME, name_of, race_of, try_and_note
from tests.prove.interleavings.paymongo_cases import CASES, Prepare
from tests.support.databases import Database
from tests.support.paymongo_apps import PayMongoApp
from tests.support.schedules import Stage
from tests.support.snapshots import paymongo_app_on_empty

SOME_OF = [cases.paymongo_checkouts, cases.paymongo_events]


@pytest.fixture(scope="module")
def shared_shop(databases: Callable[[str], Database]) -> Iterator[PayMongoApp]:
    with paymongo_app_on_empty(databases("postgresql")) as shop:
        yield shop


@pytest.mark.parametrize("prepare", SOME_OF, ids=name_of)
def test_random_orders_end_as_a_serial_one(
    shop: PayMongoApp, stage: Stage, prepare: Prepare, seed: int, effort: int
) -> None:
    race_of(shop, stage, prepare).wander(SOME * effort, seed)


@pytest.mark.long
@pytest.mark.parametrize("prepare", CASES, ids=name_of)
def test_every_order_ends_as_a_serial_one(shop: PayMongoApp, stage: Stage, prepare: Prepare, seed: int) -> None:
    try_and_note(race_of(shop, stage, prepare), seed)


def test_two_checkouts_open_one_session(shop: PayMongoApp) -> None:
    """That the cases above compare what they should: serial checkouts leave one session that can be paid."""
    for operation in cases.paymongo_checkouts(shop):
        assert operation.do(shop.app).word == "200"
    assert shop.fake.books().payable == ["session active"]
