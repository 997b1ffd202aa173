"""A sender that is killed at any step: nothing is lost, and nothing comes twice unless its answer was lost."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from flask import Flask

from payments_app.webhook_endpoints.sender import Sender
from tests.support.databases import Database
from tests.support.dialects import long_on_sqlite
from tests.support.kill_points import Doomed, points
from tests.support.operations import OperationResult
from tests.support.people import Person
from tests.webhook_endpoints.conftest import PRIVATE, Webhooks


@dataclass(frozen=True)
class SendOnce:
    """``webhooks send --once``."""

    def do(self, app: Flask) -> OperationResult:
        with app.app_context():
            Sender(app).run_once()
        return OperationResult("sent")


@pytest.fixture
def doomed(database: Database, webhooks: Webhooks) -> Iterator[Doomed]:  # noqa: ARG001  # on an empty database
    with Doomed.ready(database.url, **PRIVATE) as doomed:
        yield doomed


def events_of(person: Person) -> Iterator[int]:
    """Makes one event each time: a payment, and then its end."""
    while True:
        payment_id = person.pay(5).json["data"]["payment_id"]
        yield payment_id
        assert person.post(f"/payments/{payment_id}/cancel").status_code == 200
        yield payment_id


@long_on_sqlite
def test_a_sender_killed_at_any_step_loses_nothing(doomed: Doomed, webhooks: Webhooks, *, is_long: bool) -> None:
    """A short run kills it at a dozen steps."""
    endpoint_id, _ = webhooks.endpoint("/a/ok")
    events = events_of(webhooks.people.patient)
    next(events)
    doomed.practise(SendOnce())
    next(events)
    found = points(doomed.watch(SendOnce()), of_sqlite=webhooks.rows.is_sqlite)
    twice = 0
    for point in found if is_long else found[:: len(found) // 12]:
        next(events)
        before = len(webhooks.receiver.at("/a/ok"))
        doomed.kill(SendOnce(), point)
        webhooks.end_leases()
        webhooks.send()
        come = webhooks.receiver.at("/a/ok")[before:]
        # Twice, and known by its id, if it was killed between the answer and the commit that writes it down.
        assert len({each.id for each in come}) == 1, point
        assert len(come) <= 2, point
        twice += len(come) - 1
        assert set(webhooks.statuses(endpoint_id)) == {"delivered"}, point

    positions = webhooks.positions_at("/a/ok")
    assert positions == sorted(positions)
    assert set(positions) == set(range(1, max(positions) + 1))
    assert 0 < twice < len(found) / 2
