"""What the example of a booking site makes of events and refusals. Its whole way is walked in tests/browser."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.api_keys import key_of
from tests.support.booking_site import client_of_site, load_site, served, signed
from tests.support.dialects import on_sqlite
from tests.support.links import Payer
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp

pytestmark = on_sqlite

SCOPES = ("consultations:write", "links:write", "payments:read", "refunds:write", "events:read")
BOOKING = {"name": "Maria Santos", "email": "maria@example.com", "what": "Check-up", "amount": "1500.50"}


@dataclass
class Site:
    """The site beside a service whose cards are carried by Stripe's look-alike."""

    module: ModuleType
    stripe_app: StripeApp

    def __post_init__(self) -> None:
        self.client = client_of_site(self.module)

    def post(self, path: str, **form: str) -> Any:
        return self.client.post(path, data=form)

    def book(self) -> str:
        """The path of a new booking."""
        answer = self.post("/bookings", **BOOKING)
        assert answer.status_code == 303, answer.get_data(as_text=True)
        return str(answer.location)

    def pay(self, path: str) -> None:
        """Pay by card, as the page of the booking's link does; no webhook tells the site."""
        booking_id, people = int(path.rpartition("/")[2]), self.stripe_app.people
        link = people.admin.post(f"/consultations/{booking_id}/links", {}).json["data"]
        payer = Payer(people, booking_id, link)
        body = {"consultation_id": booking_id, "amount": 1500.5, "payment_method": "stripe"}
        payment_id = payer.post("/payments", body).json["data"]["payment_id"]
        reference = payer.post(f"/payments/{payment_id}/checkout").json["data"]["reference"]
        self.stripe_app.fake.pay(reference)
        assert people.admin.confirm(payment_id, reference).status_code == 200

    def hear(self, *events: tuple[int, str, str, int]) -> None:
        """Webhooks in that order: position, type, status and payment."""
        for position, kind, status, payment_id in events:
            data = {"consultation_id": 7, "payment_id": payment_id, "status": status}
            event = {"id": 900 - position, "type": kind, "position": position, "created_at": "2026-11-29", "data": data}
            body, headers = signed(event, webhook_id=f"evt_{position}")
            assert self.client.post("/webhooks", data=body, headers=headers).status_code == 204

    def text(self, path: str = "/") -> str:
        answer = self.client.get(path)
        assert answer.status_code == 200
        return answer.get_data(as_text=True)

    def state(self, path: str) -> str:
        (state,) = re.findall('role="status">([^<]*)<', self.text(path))
        return str(state)


@pytest.fixture
def site(stripe_app: StripeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    key = key_of(stripe_app.people, stripe_app.people.admin, *SCOPES)
    with served(stripe_app.app) as url:
        yield Site(load_site(monkeypatch, tmp_path, url, key.token), stripe_app)


def test_a_declined_refund_can_be_asked_for_again(site: Site, rows: Rows) -> None:
    path = site.book()
    assert site.state(path) == "to be paid"
    site.pay(path)
    site.post("/reconcile")
    assert site.state(path) == "paid"
    site.stripe_app.fake.misbehave("refuse")

    declined = site.post(f"{path}/cancel")

    assert declined.status_code == 502
    assert "The gateway declined to refund" in declined.get_data(as_text=True)
    assert site.state(path) == "to be refunded"  # the site knows that it has cancelled
    site.post("/reconcile")
    assert site.state(path) == "refund failed"

    assert site.post(f"{path}/cancel").location == path
    assert site.post(f"{path}/cancel").location == path  # again: nothing is left to refund
    site.post("/reconcile")
    assert site.state(path) == "refunded"
    assert [row["status"] for row in rows.all("SELECT status FROM refunds ORDER BY id")] == ["failed", "succeeded"]
    assert [refund["amount"] for refund in site.stripe_app.fake.refunds.values()] == [150_050]


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([(1, "payment.created", "pending", 1)], "payment begun"),
        ([(2, "payment.completed", "completed", 1), (1, "payment.created", "pending", 1)], "paid"),
        ([(2, "payment.completed", "completed", 1)] * 2, "paid"),
        ([(1, "payment.expired", "expired", 1)], "to be paid"),
        ([(1, "payment.expired", "expired", 1), (2, "payment.completed", "completed", 1)], "paid"),
        ([(1, "payment.completed", "completed", 2), (2, "payment.expired", "expired", 1)], "paid"),
        ([(1, "payment.completed", "completed", 2), (2, "payment.quarantined", "expired", 1)], "paid too late"),
        ([(1, "refund.requested", "completed", 1)], "refund under way"),
        ([(2, "refund.succeeded", "refunded", 1), (1, "refund.requested", "completed", 1)], "refunded"),
        ([(1, "refund.succeeded", "refunded", 1), (2, "refund.reversed", "refunded", 1)], "refund failed"),
        ([(1, "dispute.lost", "partially_refunded", 1)], "partly refunded"),
    ],
)
def test_events_in_any_order_make_the_state(site: Site, events: list[tuple[int, str, str, int]], state: str) -> None:
    site.module.query("INSERT INTO bookings (id, name, what, amount) VALUES (7, 'Maria', 'Check-up', '1500')")

    site.hear(*events)

    assert site.state("/bookings/7").startswith(state)
    assert site.text("/bookings/7").count("<li>") == len(set(events))


def test_a_cursor_that_was_lost_begins_again(site: Site, rows: Rows) -> None:
    path = site.book()
    site.pay(path)
    site.post("/reconcile")
    before = site.module.query("SELECT * FROM events")
    rows.execute("UPDATE payment_events SET created_at = '2020-01-01 00:00:00.000000'")  # as other events would be

    assert site.post("/reconcile").location == "/"

    after = site.module.query("SELECT * FROM events")
    assert [event["position"] for event in after] == [event["position"] for event in before] == [1, 2]
    assert {event["created_at"] for event in after} == {"2020-01-01T00:00:00.000000Z"}
    assert site.state(path) == "paid"


def test_what_is_refused_is_shown_and_books_nothing(site: Site) -> None:
    refused = site.post("/bookings", **{**BOOKING, "amount": "1"})

    assert refused.status_code == 502
    assert "fee: Must be from 1,000.00" in refused.get_data(as_text=True)
    assert "Nothing is booked yet." in site.text()
    assert site.client.get("/bookings/1").status_code == 404


def test_a_service_that_does_not_answer_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.module, "API", "http://127.0.0.1:9/api/v1")

    assert "does not answer" in site.post("/bookings", **BOOKING).get_data(as_text=True)
