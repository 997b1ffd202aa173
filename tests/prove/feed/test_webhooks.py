"""Each committed event is sent to an endpoint, first attempts in order, whoever is killed meanwhile.

The writers are those of ``test_order.py``. Senders run as processes of their own and are killed at any moment.
"""

import random
from collections import Counter
from multiprocessing.process import BaseProcess

from payments_app.accounts.system_user import system_caller
from payments_app.payments import audit
from payments_app.webhook_endpoints import repository
from payments_app.webhook_endpoints.repository import NewEndpoint
from payments_app.webhook_endpoints.sender import Sender
from tests.prove.feed.conftest import Route
from tests.prove.feed.test_order import payments_of_writers
from tests.support.apps import app_with, engine_of
from tests.support.feed_processes import Writers, processes
from tests.support.receiver import receiving
from tests.support.recorded_figures import note
from tests.support.rows import Rows
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Of each of the four writers, and of the sender, in the short form.
TRANSACTIONS, KILLS = 20, 3

PRIVATE = {"WEBHOOK_ALLOW_PRIVATE": "1"}


def send_forever(url: str, settings: dict[str, str]) -> None:
    with app_with(url, **settings) as app, app.app_context():
        Sender(app).run()


def start_sender(route: Route) -> BaseProcess:
    process = processes.Process(target=send_forever, args=(route.url, {**route.settings, **PRIVATE}), daemon=True)
    process.start()
    return process


def test_an_endpoint_is_sent_each_committed_event(route: Route, effort: int, seed: int) -> None:
    choices = random.Random(seed)  # noqa: S311  # no secret depends on it
    with app_with(route.past_pooler, **PRIVATE) as app, receiving() as receiver:
        writers = Writers(route.past_pooler, payments_of_writers(app), TRANSACTIONS * effort, seed)
        rows = Rows(engine_of(app))
        with app.app_context():
            new = NewEndpoint(url=receiver.url("/a/ok"), types=["*"])
            endpoint = repository.create(new, caller=system_caller())
        sender = start_sender(route)
        try:
            writers.begin()
            for _ in range(KILLS * effort):
                seen, more = len(receiver.received), choices.randint(0, 3)
                wait_until(lambda goal=seen + more: len(receiver.received) >= goal)  # type: ignore[misc]  # a default
                sender.kill()
                sender.join()
                # As if the next one had waited for a minute.
                rows.execute("UPDATE webhook_deliveries SET leased_until = NULL WHERE leased_until IS NOT NULL")
                sender = start_sender(route)
            committed = writers.committed(PATIENCE_SECONDS * effort)
            wait_until(lambda: rows.count("webhook_deliveries", "status = 'delivered'") == len(committed))
        finally:
            sender.kill()
            sender.join()
        assert rows.count("webhook_deliveries", "endpoint_id = :id", id=endpoint.id) == len(committed)
        with app.app_context():
            checks = [check for check in audit.CHECKS if check.invariant == "M10"]
            assert [found for check in checks for found in audit.find_violations(check)] == []

    times = Counter(each.id for each in receiver.received)
    in_order = list({each.id: each.event for each in receiver.received}.values())  # by their first attempts
    assert [event["position"] for event in in_order] == list(range(1, len(committed) + 1))
    assert sorted(event["id"] for event in in_order) == sorted(committed)
    twice = sum(times.values()) - len(times)
    assert twice <= KILLS * effort  # whose answers were lost
    note(f"webhooks-order-{route.name}", events=len(committed), kills=KILLS * effort, sent_twice=twice)
