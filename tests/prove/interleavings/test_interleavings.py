"""Operations that race for one payment, in every order of their steps, end where some serial order of them does.

A step is a statement, a commit or a call to the gateway. Where an order fails, it is named: ``SCHEDULE=ABBA`` in the
environment, with ``-k`` and the name of the case, repeats just that one, letter by letter of whose step it was.
``PROOF_SEED`` repeats what was chosen at random.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.prove.interleavings import cases
from tests.prove.interleavings.cases import PAIRS, TRIPLES, Prepare
from tests.prove.interleavings.explore import SOME, name_of, race_of, try_and_note
from tests.support.databases import Database
from tests.support.schedules import Stage
from tests.support.snapshots import stripe_app_on_empty
from tests.support.stripe_apps import StripeApp

# Those with few enough orders that trying all of them takes a second or two each.
ALL_OF = [
    cases.twin_creates,
    cases.creates_of_one_key,
    cases.create_by_link_and_revoke,
    cases.create_and_close,
    cases.confirm_and_cancel,
]
SOME_OF = [
    cases.creates,
    cases.checkout_by_link_and_revoke,
    cases.late_money_and_close,
    cases.confirms,
    cases.confirm_and_expire,
    cases.confirm_and_webhook,
    cases.refunds,
    cases.refund_and_webhook,
    cases.resumes,
    cases.approvals,
    cases.approve_and_reject,
    cases.dispute_and_approve,
    cases.transfers_by_hand,
    cases.approve_reject_and_dispute,
    cases.dispute_and_refund,
    cases.dispute_and_resume,
    cases.dispute_refund_and_end,
    cases.confirm_cancel_and_expire,
    cases.refunds_and_webhook,
]


@pytest.fixture(scope="module")
def shared_shop(databases: Callable[[str], Database]) -> Iterator[StripeApp]:
    with stripe_app_on_empty(databases("postgresql")) as stripe_app:
        yield stripe_app


@pytest.mark.parametrize("prepare", ALL_OF, ids=name_of)
def test_every_order_of_few_steps_ends_as_a_serial_one(shop: StripeApp, stage: Stage, prepare: Prepare) -> None:
    race = race_of(shop, stage, prepare)
    race.search()
    assert race.tried.is_all
    assert len(race.tried.outcomes) <= len(race.serial)


@pytest.mark.parametrize("prepare", SOME_OF, ids=name_of)
def test_random_orders_end_as_a_serial_one(
    shop: StripeApp, stage: Stage, prepare: Prepare, seed: int, effort: int
) -> None:
    race = race_of(shop, stage, prepare)
    race.wander(SOME * effort, seed)


@pytest.mark.long
@pytest.mark.parametrize("prepare", [*PAIRS, *TRIPLES], ids=name_of)
def test_every_order_ends_as_a_serial_one(shop: StripeApp, stage: Stage, prepare: Prepare, seed: int) -> None:
    try_and_note(race_of(shop, stage, prepare), seed)
