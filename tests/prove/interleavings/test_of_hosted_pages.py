"""The same as ``test_interleavings.py``, with Stripe's own page instead of a form in the clinic's."""

from collections.abc import Callable, Iterator

import pytest

from tests.prove.interleavings.explore import name_of, race_of, try_and_note
from tests.prove.interleavings.hosted_cases import CASES, Prepare
from tests.support.databases import Database
from tests.support.schedules import Stage
from tests.support.snapshots import hosted_app_on_empty
from tests.support.stripe_apps import StripeApp


@pytest.fixture(scope="module")
def shared_shop(databases: Callable[[str], Database]) -> Iterator[StripeApp]:
    with hosted_app_on_empty(databases("postgresql")) as shop:
        yield shop


@pytest.mark.long
@pytest.mark.parametrize("prepare", CASES, ids=name_of)
def test_every_order_ends_as_a_serial_one(shop: StripeApp, stage: Stage, prepare: Prepare, seed: int) -> None:
    try_and_note(race_of(shop, stage, prepare), seed)
