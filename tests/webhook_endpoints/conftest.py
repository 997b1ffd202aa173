"""An app that may send webhooks to this machine, and a site that receives them."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from payments_app.webhook_endpoints.sender import Sender
from tests.support.people import People
from tests.support.receiver import Receiver, receiving
from tests.support.rows import Rows

PRIVATE = {"WEBHOOK_ALLOW_PRIVATE": "1"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def session_sending_app(apps: Callable[..., Flask]) -> Flask:
    return apps(**PRIVATE)


class Webhooks:
    """Endpoints, and a sender that sends what is due when it is told to."""

    def __init__(self, app: Flask, people: People, receiver: Receiver, rows: Rows) -> None:
        self.app, self.people, self.receiver, self.rows = app, people, receiver, rows

    def endpoint(self, path: str, **members: object) -> tuple[int, str]:
        """The id and the secret of a new one at a path of the receiver."""
        made = self.people.admin.post("/webhook-endpoints", {"url": self.receiver.url(path), **members})
        assert made.status_code == 201, made.text
        return made.json["data"]["id"], made.json["data"]["secret"]

    def send(self) -> dict[str, int]:
        """Send all that is due, once; attempts by what came of them."""
        sender = Sender(self.app)
        with self.app.app_context():
            sender.run_once()
        return dict(sender.counts)

    def let_retries_be_due(self) -> None:
        self.rows.execute("UPDATE webhook_deliveries SET next_attempt_at = created_at WHERE attempts > 0")

    def end_leases(self) -> None:
        self.rows.execute("UPDATE webhook_deliveries SET leased_until = created_at WHERE leased_until IS NOT NULL")

    def positions_at(self, path: str) -> list[int]:
        return [each.event["position"] for each in self.receiver.at(path)]

    def deliveries(self, endpoint_id: int, columns: str = "*") -> list[dict[str, object]]:
        return self.rows.all(
            f"SELECT {columns} FROM webhook_deliveries WHERE endpoint_id = :id ORDER BY position, id", id=endpoint_id
        )

    def statuses(self, endpoint_id: int) -> list[object]:
        return [each["status"] for each in self.deliveries(endpoint_id)]

    def shown(self, endpoint_id: int) -> dict[str, object]:
        shown: dict[str, object] = self.people.admin.get(f"/webhook-endpoints/{endpoint_id}").json["data"]
        return shown


@pytest.fixture
def webhooks(session_sending_app: Flask, people: People, receiver: Receiver, rows: Rows) -> Webhooks:
    return Webhooks(session_sending_app, people.seen_by(session_sending_app), receiver, rows)
