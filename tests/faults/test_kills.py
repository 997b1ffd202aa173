"""A gunicorn whose workers are killed in mid-storm: retried, each refund happened once.

That a process may be killed at any step of what it does is tried in tests/prove/crashes.
"""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import requests

from tests.support.databases import Database
from tests.support.dialects import long_on_sqlite
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import Service, at_once, statuses
from tests.support.snapshots import LASTING
from tests.support.stripe_apps import StripeApp, pay_by_card, resume_refunds, stripe_app_on, stripe_settings
from tests.support.waiting import wait_until


@pytest.fixture
def stripe_app(database: Database, people: People) -> Iterator[StripeApp]:
    with stripe_app_on(database.url, people, **LASTING) as stripe_app:
        yield stripe_app


pytestmark = pytest.mark.usefixtures("audited")


def resume(stripe_app: StripeApp) -> int:
    """What the timer does; how many refunds it found to be looked after."""
    return len(resume_refunds(stripe_app.app, lease_seconds=600))


def end_leases(rows: Rows) -> None:
    rows.execute("UPDATE refunds SET leased_until = created_at")


@long_on_sqlite
def test_workers_killed_in_mid_storm_return_nothing_twice(
    stripe_app: StripeApp, database: Database, rows: Rows
) -> None:
    """A real gunicorn, whose workers are all killed while refunds are on their way, and which starts others."""
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    keys = [f"key-{number}" for number in range(10)]
    with Service.started(database.url, **stripe_settings(stripe_app.fake, **LASTING)) as service:
        path = f"/payments/{payment_id}/refund"

        def ask(key: str) -> requests.Response:
            try:
                return service.post(stripe_app.people.admin, path, {"amount": 10}, **{"Idempotency-Key": key})
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                return requests.Response()  # it is dead: no answer, or the head of one

        def kill() -> requests.Response:
            # Only when Stripe has applied three of them: others may have come less far.
            stripe_app.fake.wait_until_hanging(3)
            for pid in service.pids_that_served():
                os.kill(int(pid.strip("<>")), signal.SIGKILL)
            stripe_app.fake.behave()
            stripe_app.fake.release()
            return requests.Response()

        stripe_app.fake.misbehave("hang", times=None)
        calls: list[Callable[[], requests.Response]] = [*(partial(ask, key) for key in keys), kill]
        at_once(calls)
        # Whoever had no answer asks again with the same key, until somebody is there to answer.
        wait_until(lambda: set(statuses([ask(key) for key in keys])) <= {200, 202})

        end_leases(rows)
        resume(stripe_app)

        assert statuses([ask(key) for key in keys]) == {200: len(keys)}
    assert rows.count("refunds", "status = 'succeeded'") == rows.count("refunds") == len(keys)
    kept = rows.one("SELECT transaction_id, refunded_minor, refund_reserved_minor FROM payments")
    assert (kept["refunded_minor"], kept["refund_reserved_minor"]) == (10_000, 0)
    assert len(stripe_app.fake.refunds) == len(keys)
    assert stripe_app.fake.refunded_total(kept["transaction_id"]) == 10_000
