"""A sender that is killed at any step: nothing is lost, and nothing comes twice unless its answer was lost."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from flask import Flask

from payments_app.webhook_endpoints.sender import Sender
from tests.support.databases import Database
from tests.support.kill_points import Doomed, When, points
from tests.webhook_endpoints.conftest import PRIVATE, Webhooks


@dataclass(frozen=True)
class SendOnce:
    """``webhooks send --once``."""

    def do(self, app: Flask) -> None:
        with app.app_context():
            Sender(app).run_once()


@pytest.fixture
def doomed(database: Database, webhooks: Webhooks) -> Iterator[Doomed]:  # noqa: ARG001  # on an empty database
    with Doomed.ready(database.url, **PRIVATE) as doomed:
        yield doomed


def test_a_sender_killed_at_any_step_loses_nothing(doomed: Doomed, webhooks: Webhooks, *, is_long: bool) -> None:
    """One endpoint takes all, one nothing. Each payment is one event; a short run kills at every third step."""
    good, _ = webhooks.endpoint("/good/ok")
    bad, _ = webhooks.endpoint("/bad/500", is_enabled=False)
    webhooks.people.admin.send("PATCH", f"/webhook-endpoints/{bad}", json={"is_enabled": False})
    consultations = iter(range(1, 21))

    def pay() -> int:
        return int(webhooks.people.patient.pay(next(consultations)).json["data"]["payment_id"])

    pay()
    doomed.practise(SendOnce())
    pay()
    steps = doomed.watch(SendOnce())
    killed = points(steps, of_sqlite=webhooks.rows.is_sqlite)
    chosen = killed if is_long else killed[:: max(1, len(killed) // 12)]
    for number, point in enumerate(chosen):
        if number < 17:
            pay()  # later ones find the retry of the first to be due, and the consultations are used up
        else:
            webhooks.rows.execute(
                "UPDATE webhook_deliveries SET status = 'pending', delivered_at = NULL, attempts = 0"
                " WHERE position = (SELECT max(position) FROM webhook_deliveries)"
            )
        before = len(webhooks.receiver.at("/good/ok"))
        doomed.kill(SendOnce(), point)
        webhooks.end_leases()
        webhooks.send()
        come = webhooks.receiver.at("/good/ok")[before:]
        # Twice, with the same id, only if it was killed between the answer and the commit that writes it down.
        assert Counter(each.id for each in come).most_common(1)[0][1] <= 2, point
        assert len({each.id for each in come}) == 1, point
        if point.when is When.BEFORE and point.number == len(steps):
            assert len(come) == 1
        assert set(webhooks.statuses(good)) == {"delivered"}, point

    positions = webhooks.positions_at("/good/ok")
    assert positions == sorted(positions)
    assert set(positions) == set(range(1, max(positions) + 1))
    assert webhooks.deliveries(bad) == []
