"""Processes killed at every step of what they do: asked again, it has happened once, and the money is right.

The steps are those that it takes when it is left alone, found by doing so: a new statement in the code is a new point
to be killed at. ``POINT=<number>`` in the environment, with ``-k``, tries that step alone.
"""

import os
import random
from collections.abc import Callable, Iterator

import pytest

from payments_app import clock
from payments_app.refunds import service
from tests.prove.states import (
    CONSULTATION,
    by_hand,
    completed,
    lost_refund,
    paid_at_stripe,
    pending,
    refund_to_be_sent,
    requested_refund,
    returned_elsewhere,
    succeeded,
)
from tests.support.databases import Database
from tests.support.kill_points import Doomed, Point, When, points
from tests.support.operations import (
    Expire,
    Operation,
    Resume,
    approve,
    cancel,
    checkout,
    close,
    confirm,
    create,
    refund,
    reject,
    settle,
)
from tests.support.recorded_figures import note
from tests.support.snapshots import LASTING, Snapshot, stripe_app_on_empty
from tests.support.stripe_apps import StripeApp, open_by_card, stripe_settings

Prepare = Callable[[StripeApp], Operation]


def a_create(stripe_app: StripeApp) -> Operation:
    return create(stripe_app.people.patient, CONSULTATION, "the-key")


def a_checkout(stripe_app: StripeApp) -> Operation:
    return checkout(stripe_app.people.patient, pending(stripe_app), "the-key")


def a_confirm(stripe_app: StripeApp) -> Operation:
    payment_id, intent = paid_at_stripe(stripe_app)
    return confirm(stripe_app.people.patient, payment_id, intent, "the-key")


def a_webhook(stripe_app: StripeApp) -> Operation:
    return succeeded(stripe_app, paid_at_stripe(stripe_app)[1])


def a_cancel(stripe_app: StripeApp) -> Operation:
    return cancel(stripe_app.people.patient, open_by_card(stripe_app.people, CONSULTATION)[0], "the-key")


def a_closing(stripe_app: StripeApp) -> Operation:
    open_by_card(stripe_app.people, CONSULTATION)
    return close(stripe_app.people.admin, CONSULTATION)


def an_expiry(stripe_app: StripeApp) -> Operation:
    return Expire(open_by_card(stripe_app.people, CONSULTATION)[0])


def a_confirm_by_hand(stripe_app: StripeApp) -> Operation:
    return confirm(stripe_app.people.admin, by_hand(stripe_app), "TXN-1", "the-key")


def a_refund(stripe_app: StripeApp) -> Operation:
    return refund(stripe_app.people.admin, completed(stripe_app)[0], 1500, "the-key")


def a_webhook_of_a_refund(stripe_app: StripeApp) -> Operation:
    return returned_elsewhere(stripe_app, completed(stripe_app)[1], 150_000)


def an_approval(stripe_app: StripeApp) -> Operation:
    return approve(stripe_app.people.another_admin(), requested_refund(stripe_app), "the-key")


def a_rejection(stripe_app: StripeApp) -> Operation:
    return reject(stripe_app.people.another_admin(), requested_refund(stripe_app), "the-key")


def a_transfer_by_hand(stripe_app: StripeApp) -> Operation:
    return settle(stripe_app.people.admin, refund_to_be_sent(stripe_app), "OUT-1", "the-key")


def a_resume_that_sends_again(stripe_app: StripeApp) -> Operation:
    return Resume(lost_refund(stripe_app, applied=False))


def a_resume_that_finds_it(stripe_app: StripeApp) -> Operation:
    return Resume(lost_refund(stripe_app, applied=True))


OPERATIONS: list[Prepare] = [
    a_create,
    a_checkout,
    a_confirm,
    a_webhook,
    a_cancel,
    a_closing,
    an_expiry,
    a_confirm_by_hand,
    a_refund,
    a_webhook_of_a_refund,
    an_approval,
    a_rejection,
    a_transfer_by_hand,
    a_resume_that_sends_again,
    a_resume_that_finds_it,
]
# A short run kills these where something is done for good.
ASKED_FOR: list[Prepare] = [a_create, a_confirm, a_webhook, a_refund, an_approval, a_resume_that_sends_again]
# And at so many other steps.
OTHERS = 2


@pytest.fixture(scope="module", params=["postgresql", pytest.param("sqlite", marks=pytest.mark.long)])
def database(request: pytest.FixtureRequest, databases: Callable[[str], Database]) -> Database:
    return databases(request.param)


@pytest.fixture(scope="module")
def shared_stripe_app(database: Database) -> Iterator[StripeApp]:
    with stripe_app_on_empty(database) as stripe_app:
        yield stripe_app


@pytest.fixture(scope="module")
def blank(shared_stripe_app: StripeApp) -> Snapshot:
    return Snapshot(shared_stripe_app)


@pytest.fixture
def stripe_app(shared_stripe_app: StripeApp, blank: Snapshot) -> StripeApp:
    blank.put_back()
    return shared_stripe_app


@pytest.fixture(scope="module")
def doomed(database: Database, shared_stripe_app: StripeApp) -> Iterator[Doomed]:
    with Doomed.ready(database.url, **stripe_settings(shared_stripe_app.fake, **LASTING)) as doomed:
        yield doomed


class Crash:
    """An operation, what comes of it when it is left alone, and the points at which it may be killed."""

    def __init__(self, stripe_app: StripeApp, doomed: Doomed, prepare: Prepare) -> None:
        self.operation = prepare(stripe_app)
        Snapshot(stripe_app).end_leases()
        self.snapshot, self._doomed = Snapshot(stripe_app), doomed
        doomed.practise(self.operation)
        self.snapshot.put_back()
        self.steps = doomed.watch(self.operation)
        heard_of = {table for step in self.steps for table in step.shows}
        assert self.snapshot.changed() <= heard_of, "rows were changed by a statement that nobody heard of"
        self._expected = self.snapshot.look().state()
        self.snapshot.put_back()
        self._described = [self.operation.do(stripe_app.app).word for _ in range(2)]
        assert self.snapshot.look().state() == self._expected, "asked twice, it happened twice"
        self.points = points(self.steps, of_sqlite=self.snapshot.rows.is_sqlite)

    def at(self, point: Point) -> None:
        """Kill it there, and ask again until there is an answer: then it is as if nobody had been killed."""
        self.snapshot.put_back()
        self._doomed.kill(self.operation, point)
        told = self.snapshot.finish(self.operation, None)
        assert told.word in self._described, f"{point}: {told}"
        assert self.snapshot.look().state() == self._expected, point
        assert self.snapshot.violations() == [], point


def wanted_of(crash: Crash, chosen: list[Point]) -> list[Point]:
    """Those that were chosen; where one step is to be tried alone, that one."""
    number = os.environ.get("POINT")
    return chosen if number is None else [point for point in crash.points if point.number == int(number)]


def where_something_is_done(crash: Crash) -> list[Point]:
    """Around each commit, each statement that commits itself, and each call."""
    numbers = {number for number, step in enumerate(crash.steps) if step.is_for_good}
    return [point for point in crash.points if point.number in numbers or point.number - 1 in numbers]


@pytest.mark.parametrize("prepare", ASKED_FOR, ids=lambda prepare: prepare.__name__)
def test_a_process_killed_where_something_is_done_does_it_once(
    stripe_app: StripeApp, doomed: Doomed, prepare: Prepare, seed: int
) -> None:
    crash = Crash(stripe_app, doomed, prepare)
    decisive = where_something_is_done(crash)
    assert len(decisive) > 1
    others = random.Random(seed).sample([point for point in crash.points if point not in decisive], OTHERS)  # noqa: S311  # no secret depends on it
    for point in wanted_of(crash, decisive + others):
        crash.at(point)


@pytest.mark.parametrize("when", When)
def test_a_refund_whose_process_died_is_left_alone_as_long_as_its_lease_lasts(
    stripe_app: StripeApp, doomed: Doomed, when: When
) -> None:
    """Somebody may be at work on it: whoever asks is told that it is open, and only a resume sends it again."""
    crash = Crash(stripe_app, doomed, a_refund)
    (point,) = [point for point in crash.points if (point.words, point.when) == ("POST /v1/refunds", when)]
    crash.snapshot.put_back()
    doomed.kill(crash.operation, point)
    for _ in range(2):
        assert crash.operation.do(stripe_app.app).word == "202 replayed"
        with stripe_app.app.app_context():
            assert list(service.find_open(clock.now())) == []
    assert stripe_app.fake.count("POST", "/v1/refunds") == (when is When.SENT)

    crash.snapshot.resume_all()

    assert crash.operation.do(stripe_app.app).word == "200 replayed"
    assert stripe_app.fake.count("POST", "/v1/refunds") == 1
    assert crash.snapshot.rows.one("SELECT refunded_minor, refund_reserved_minor FROM payments") == {
        "refunded_minor": 150_000,
        "refund_reserved_minor": 0,
    }


@pytest.mark.long
@pytest.mark.parametrize("prepare", OPERATIONS, ids=lambda prepare: prepare.__name__)
def test_a_process_killed_at_any_step_does_it_once(
    stripe_app: StripeApp, doomed: Doomed, prepare: Prepare, database: Database
) -> None:
    crash = Crash(stripe_app, doomed, prepare)
    for point in wanted_of(crash, crash.points):
        crash.at(point)
    dialect = database.url.partition(":")[0].partition("+")[0]
    note(
        f"crashes-{prepare.__name__}-{dialect}",
        steps=len(crash.steps),
        kills=len(crash.points),
        in_flight=sum(point.when is When.SENT for point in crash.points),
    )
