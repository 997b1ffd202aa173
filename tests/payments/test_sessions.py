"""A session is made from its row: the row is there before the gateway is asked, and every call says what it says."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from payments_app import clock
from payments_app.gateways.base import GatewayName
from payments_app.payments import expire as expiry
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.expire import ExpiryResult
from payments_app.payments.models.event import AuditContext
from tests.gateway_webhooks import state_of, tell
from tests.payments.test_checkout import INTENTS, PATIENT, checkout, create, problem
from tests.support.databases import Database
from tests.support.people import People
from tests.support.raw_rows import Raw
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, stripe_app_on

pytestmark = pytest.mark.usefixtures("audited")

Change = Callable[..., None]


@pytest.fixture
def change(stripe_app: StripeApp, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Give the gateway other capabilities, as another gateway would have them."""
    gateway = stripe_app.app.extensions["gateways"][GatewayName.STRIPE]

    def change(**capabilities: Any) -> None:
        monkeypatch.setattr(gateway, "capabilities", replace(gateway.capabilities, **capabilities))

    return change


def sessions(rows: Rows) -> list[tuple[int, str]]:
    """Number and status of each, in order."""
    return [(row["number"], row["status"]) for row in rows.all("SELECT * FROM gateway_sessions ORDER BY id")]


def test_a_repeated_call_is_the_same_to_the_byte(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people)
    stripe_app.fake.misbehave("drop", path=INTENTS)
    assert checkout(stripe_app.people.patient, payment_id, "k").status_code == 503
    assert sessions(rows) == [(1, "opening")]

    assert checkout(stripe_app.people.patient, payment_id, "k").status_code == 200

    first, second = (seen for seen in stripe_app.fake.received if seen.path == INTENTS)
    assert first == second
    assert first.idempotency_key == f"checkout-{payment_id}-1"
    assert sessions(rows) == [(1, "open")]


def test_a_lost_session_of_a_gateway_that_remembers_no_keys_is_replaced(
    stripe_app: StripeApp, rows: Rows, change: Change
) -> None:
    change(remembers_keys_seconds=None)
    payment_id = create(stripe_app.people)
    stripe_app.fake.misbehave("drop", path=INTENTS)
    assert checkout(stripe_app.people.patient, payment_id, "k").status_code == 503

    assert checkout(stripe_app.people.patient, payment_id, "k").status_code == 200

    assert sessions(rows) == [(1, "lost"), (2, "open")]


def test_nobody_opens_a_second_one_while_the_first_may_still_come(
    database: Database, people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stripe_app_on(database.url, people, **PATIENT) as shop, ThreadPoolExecutor(1) as pool:
        gateway = shop.app.extensions["gateways"][GatewayName.STRIPE]
        forgetful = replace(gateway.capabilities, remembers_keys_seconds=None)
        monkeypatch.setattr(gateway, "capabilities", forgetful)
        payment_id = create(shop.people)
        shop.fake.misbehave("hang", path=INTENTS)
        asked = pool.submit(checkout, shop.people.seen_by(shop.app).patient, payment_id)
        shop.fake.wait_until_hanging()

        meanwhile = checkout(shop.people.patient, payment_id)
        shop.fake.release()

        assert problem(meanwhile) == (409, "version-conflict")
        assert meanwhile.json["retryable"] is True
        assert asked.result().status_code == 200
        assert len(shop.fake.intents) == 1
        assert sessions(rows) == [(1, "open")]


def test_an_event_that_is_faster_than_the_response_makes_no_second_row(
    database: Database, people: People, rows: Rows
) -> None:
    with stripe_app_on(database.url, people, **PATIENT) as shop, ThreadPoolExecutor(1) as pool:
        payment_id = create(shop.people)
        shop.fake.misbehave("hang", path=INTENTS)
        asked = pool.submit(checkout, shop.people.seen_by(shop.app).patient, payment_id)
        shop.fake.wait_until_hanging()
        (reference,) = shop.fake.intents
        shop.fake.start_processing(reference)
        tell(shop, shop.fake.intent_event("processing", reference))
        shop.fake.release()

        assert asked.result().status_code == 200
        assert rows.one("SELECT number, reference, status FROM gateway_sessions") == {
            "number": 1,
            "reference": reference,
            "status": "open",
        }
        assert state_of(rows, payment_id)["status"] == "processing"


def test_the_answer_says_when_the_payment_ends(stripe_app: StripeApp, rows: Rows, change: Change) -> None:
    """After its time (30 minutes, or 7 days by hand), but not before its session."""

    def life(payment_id: int) -> timedelta:
        data = checkout(stripe_app.people.patient, payment_id).json["data"]
        created_at = datetime.fromisoformat(data["payment"]["created_at"])
        return datetime.fromisoformat(data["expires_at"]) - created_at

    assert life(create(stripe_app.people, 5)) == timedelta(minutes=30)
    assert life(create(stripe_app.people, 6, payment_method="bank_transfer")) == timedelta(days=7)
    change(session_seconds=(3600, 86_400))
    assert timedelta(minutes=59) < life(create(stripe_app.people, 7)) < timedelta(minutes=61)
    change(session_seconds=(60, 120))
    assert life(create(stripe_app.people, 8)) == timedelta(minutes=30)
    assert rows.count("gateway_sessions", "status = 'open'") == 4


def test_a_payment_does_not_expire_before_its_session(
    stripe_app: StripeApp, rows: Rows, engine: Engine, change: Change
) -> None:
    change(session_seconds=(3600, 86_400))
    payment_id, reference = open_by_card(stripe_app.people, 5)
    raw = Raw(engine)
    raw.update("payments", payment_id, created_at=datetime.now(UTC) - timedelta(minutes=31))

    def overdue() -> list[int]:
        with stripe_app.app.app_context():
            deadlines = Deadlines.at(clock.now(), stripe_app.app.config["SETTINGS"])
            assert expiry.count_overdue(deadlines) == len(list(expiry.find_overdue(deadlines)))
            return list(expiry.find_overdue(deadlines))

    def expire() -> ExpiryResult:
        with stripe_app.app.app_context():
            return expiry.expire(payment_id, AuditContext("command:expire", None, clock.now()))

    assert overdue() == []
    assert expire() == ExpiryResult.FOLLOWED  # found before its session was opened
    assert stripe_app.fake.intents[reference]["status"] == "requires_payment_method"
    rows.execute(
        "UPDATE gateway_sessions SET expires_at = :at", at=rows.moment(datetime.now(UTC) - timedelta(seconds=1))
    )
    assert overdue() == [payment_id]
    assert expire() == ExpiryResult.EXPIRED


def test_a_payment_that_is_cancelled_gives_up_on_what_is_being_opened(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people)
    stripe_app.fake.misbehave("drop", path=INTENTS)
    assert checkout(stripe_app.people.patient, payment_id).status_code == 503

    assert stripe_app.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200

    assert sessions(rows) == [(1, "lost")]
