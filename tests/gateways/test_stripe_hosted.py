"""Stripe's Checkout Sessions: opened from the row, paid on Stripe's page, and told of by events of two kinds."""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from config import ConfigError
from payments_app import clock
from payments_app.gateways.base import GatewayName
from payments_app.payments import expire, resume
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.models.event import AuditContext
from tests.gateway_webhooks import state_of, tell, trail_of
from tests.payments.test_checkout import checkout, create, problem
from tests.support.apps import PRODUCTION, app_with
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.dialects import long_on_sqlite
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import Service, at_once, statuses
from tests.support.stripe_apps import StripeApp, fake_stripe, refund, stripe_settings
from tests.support.waiting import PATIENCE_SECONDS

SESSIONS = "/v1/checkout/sessions"
CLICKS = 50

pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def shop(stripe_apps: Callable[..., StripeApp]) -> StripeApp:
    """The default: Stripe's own page takes the card."""
    return stripe_apps(STRIPE_CHECKOUT="hosted", PUBLIC_URL="https://pay.example.org")


def opened(shop: StripeApp, consultation_id: int = 5) -> tuple[int, str, dict[str, Any]]:
    """A payment with an open session: its id, the session's, and what the checkout answered."""
    payment_id = create(shop.people, consultation_id)
    answer = checkout(shop.people.patient, payment_id)
    assert answer.status_code == 200, answer.json
    return payment_id, answer.json["data"]["reference"], answer.json["data"]


def cancel(shop: StripeApp, payment_id: int) -> ApiResponse:
    return shop.people.patient.post(f"/payments/{payment_id}/cancel")


def _context() -> AuditContext:
    return AuditContext("command:resume", None, clock.now())


def sessions(rows: Rows) -> list[tuple[int, str]]:
    return [(row["number"], row["status"]) for row in rows.all("SELECT * FROM gateway_sessions ORDER BY id")]


def test_a_checkout_leads_to_stripes_own_page(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference, data = opened(shop)

    assert data["redirect_url"] == shop.fake.sessions[reference]["url"]
    assert {"client_secret", "instructions"} & data.keys() == set()
    (request,) = (seen for seen in shop.fake.received if seen.path == SESSIONS)
    assert request.idempotency_key == f"checkout-{payment_id}-1"
    meant = {"payment_id": str(payment_id), "consultation_id": "5"}
    assert request.params["metadata"] == meant
    assert request.params["payment_intent_data"]["metadata"] == {**meant, "checkout_session": "1"}
    assert request.params["client_reference_id"] == str(payment_id)
    assert request.params["success_url"] == request.params["cancel_url"] == "https://pay.example.org/pay/return"
    assert request.params["line_items"]["0"]["price_data"] == {
        "currency": "php",
        "unit_amount": "500000",
        "product_data": {"name": "Consultation 5"},
    }
    life = int(request.params["expires_at"]) - datetime.now(UTC).timestamp()
    assert 30 * 60 < life < 34 * 60
    ends_at = datetime.fromtimestamp(int(request.params["expires_at"]), UTC)
    assert datetime.fromisoformat(data["expires_at"]) == ends_at
    assert data["redirect_url"] not in repr(rows.all("SELECT * FROM gateway_sessions"))


def test_a_checkout_again_comes_back_to_the_same_page(shop: StripeApp, rows: Rows) -> None:
    payment_id, _, first = opened(shop)

    again = checkout(shop.people.patient, payment_id).json["data"]

    assert again == first
    assert (len(shop.fake.sessions), sessions(rows)) == (1, [(1, "open")])


def test_the_readers_language_and_the_description_are_the_rows(shop: StripeApp, rows: Rows) -> None:
    rows.execute("UPDATE consultations SET description = 'Follow-up, Dr Cruz' WHERE id = 5")
    payment_id = create(shop.people)
    shop.fake.misbehave("drop", path=SESSIONS)
    shop.people.patient.post(f"/payments/{payment_id}/checkout", headers={"Accept-Language": "id"})
    rows.execute("UPDATE consultations SET description = 'Changed' WHERE id = 5")

    assert checkout(shop.people.patient, payment_id).status_code == 200  # in English, and yet the same call

    first, second = (seen for seen in shop.fake.received if seen.path == SESSIONS)
    assert first == second
    assert first.params["locale"] == "id"
    assert first.params["line_items"]["0"]["price_data"]["product_data"] == {"name": "Follow-up, Dr Cruz"}
    assert len(shop.fake.sessions) == 1


def test_a_call_that_waited_too_long_to_be_repeated_is_made_anew(shop: StripeApp, rows: Rows) -> None:
    payment_id = create(shop.people)
    shop.fake.misbehave("error_before", path=SESSIONS)
    assert checkout(shop.people.patient, payment_id).status_code == 503
    past = rows.moment(datetime.now(UTC) + timedelta(minutes=5))
    rows.execute("UPDATE gateway_sessions SET expires_at = :at", at=past)

    assert checkout(shop.people.patient, payment_id).status_code == 200

    assert sessions(rows) == [(1, "cancelled"), (2, "open")]


def test_a_lost_session_that_has_ended_meanwhile_is_not_given_out(shop: StripeApp, rows: Rows) -> None:
    payment_id = create(shop.people)
    shop.fake.misbehave("drop", path=SESSIONS)
    assert checkout(shop.people.patient, payment_id).status_code == 503
    (lost,) = shop.fake.sessions
    shop.fake.pass_expiry(lost)
    rows.execute("UPDATE gateway_sessions SET expires_at = :at", at=rows.moment(datetime.now(UTC)))

    answer = checkout(shop.people.patient, payment_id)

    assert shop.fake.sessions[answer.json["data"]["reference"]]["status"] == "open"
    assert sessions(rows) == [(1, "expired"), (2, "open")]


# Both events tell of the same money; each may come first, twice, or alone.
EVENTS = [("intent",), ("session",), ("intent", "session"), ("session", "intent"), ("intent", "session", "intent")]


@pytest.mark.parametrize("order", EVENTS, ids="-".join)
def test_money_that_two_events_tell_of_is_counted_once(shop: StripeApp, rows: Rows, order: tuple[str, ...]) -> None:
    payment_id, reference, _ = opened(shop)
    intent = shop.fake.submit(reference)
    events = {
        "intent": shop.fake.intent_event("succeeded", intent["id"]),
        "session": shop.fake.session_event("completed", reference),
    }

    for kind in order:
        tell(shop, events[kind])

    state = state_of(rows, payment_id)
    assert (state["status"], state["version"], state["received_minor"]) == ("completed", 1, 500_000)
    assert (state["transaction_id"], state["needs_review"]) == (intent["id"], False)
    assert rows.count("gateway_sessions") == 1  # none is made of a PaymentIntent
    assert trail_of(rows, payment_id) == ["payment.created", "payment.completed"]


def test_the_patient_may_confirm_with_the_payment_intent(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference, _ = opened(shop)
    intent = shop.fake.submit(reference)

    assert shop.people.patient.confirm(payment_id, intent["id"]).status_code == 200
    refunded = refund(shop.people.admin, payment_id)

    assert refunded.status_code == 200
    assert shop.fake.refunded_total(intent["id"]) == 500_000
    assert state_of(rows, payment_id)["status"] == "refunded"


def test_a_declined_card_leaves_the_session_open(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference, _ = opened(shop)
    intent = shop.fake.submit(reference, "decline")
    tell(shop, shop.fake.intent_event("payment_failed", intent["id"]))

    assert state_of(rows, payment_id)["status"] == "pending"
    assert trail_of(rows, payment_id) == ["payment.created", "payment.attempt_failed"]
    assert sessions(rows) == [(1, "open")]
    shop.fake.submit(reference)
    tell(shop, shop.fake.session_event("completed", reference))
    assert state_of(rows, payment_id)["status"] == "completed"


@pytest.mark.parametrize("order", list(itertools.permutations(["processing", "completed"])), ids="-".join)
@pytest.mark.parametrize("paid", [True, False], ids=["it comes", "it does not come"])
def test_money_that_takes_days(shop: StripeApp, rows: Rows, order: tuple[str, str], paid: bool) -> None:
    payment_id, reference, _ = opened(shop)
    intent = shop.fake.submit(reference, "later")
    events = {
        "processing": shop.fake.intent_event("processing", intent["id"]),
        "completed": shop.fake.session_event("completed", reference),
    }
    for kind in order:
        tell(shop, events[kind])
    assert state_of(rows, payment_id)["status"] == "processing"
    assert problem(checkout(shop.people.patient, payment_id)) == (409, "invalid-transition")

    shop.fake.finish(reference, paid=paid)
    tell(shop, shop.fake.session_event(f"async_payment_{'succeeded' if paid else 'failed'}", reference))

    assert state_of(rows, payment_id)["status"] == ("completed" if paid else "failed")
    assert sessions(rows) == [(1, "succeeded" if paid else "expired")]


def test_a_session_that_expired_leaves_the_payment_and_the_next_checkout_opens_another(
    shop: StripeApp, rows: Rows
) -> None:
    payment_id, reference, _ = opened(shop)
    shop.fake.pass_expiry(reference)
    tell(shop, shop.fake.session_event("expired", reference))
    assert state_of(rows, payment_id)["status"] == "pending"
    assert sessions(rows) == [(1, "expired")]

    assert checkout(shop.people.patient, payment_id).status_code == 200

    assert sessions(rows) == [(1, "expired"), (2, "open")]
    assert [each["status"] for each in shop.fake.sessions.values()] == ["expired", "open"]


def test_a_session_that_expired_and_nobody_told_is_replaced_in_the_same_request(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference, _ = opened(shop)
    shop.fake.pass_expiry(reference)

    answer = checkout(shop.people.patient, payment_id, "k")

    assert answer.status_code == 200
    assert answer.json["data"]["reference"] != reference
    assert sessions(rows) == [(1, "expired"), (2, "open")]


def test_money_by_an_older_session_is_second_money(shop: StripeApp, rows: Rows) -> None:
    """The page of the first one was open while it expired here; Stripe took the money all the same."""
    payment_id, reference, _ = opened(shop)
    first = shop.fake.submit(reference)
    late = shop.fake.session_event("completed", reference)
    shop.fake.sessions[reference].update(status="expired", payment_status="unpaid")
    assert checkout(shop.people.patient, payment_id).status_code == 200
    second = shop.fake.submit(list(shop.fake.sessions)[1])
    tell(shop, shop.fake.intent_event("succeeded", second["id"]))

    # The gateway tells of the same money in two events: one effect.
    tell(shop, late)
    tell(shop, shop.fake.intent_event("succeeded", first["id"]))

    state = state_of(rows, payment_id)
    assert (state["status"], state["transaction_id"], state["received_minor"]) == ("completed", second["id"], 500_000)
    assert state["needs_review"]
    assert trail_of(rows, payment_id).count("payment.paid_again") == 1
    assert state["version"] == 2
    assert first["status"] == "succeeded"


@pytest.mark.parametrize("do", [None, "decline"], ids=["not yet submitted", "declined"])
def test_cancelling_ends_the_session_first(shop: StripeApp, rows: Rows, do: str | None) -> None:
    payment_id, reference, _ = opened(shop)
    if do is not None:
        shop.fake.submit(reference, do)

    assert cancel(shop, payment_id).status_code == 200

    assert shop.fake.sessions[reference]["status"] == "expired"
    assert {intent["status"] for intent in shop.fake.intents.values()} <= {"canceled"}
    tell(shop, shop.fake.session_event("expired", reference))
    assert state_of(rows, payment_id)["status"] == "cancelled"
    assert sessions(rows) == [(1, "cancelled")]


@pytest.mark.parametrize(("do", "status"), [("pay", "completed"), ("later", "processing")])
def test_what_was_paid_at_the_same_moment_is_not_cancelled(shop: StripeApp, rows: Rows, do: str, status: str) -> None:
    payment_id, reference, _ = opened(shop)
    shop.fake.submit(reference, do)

    assert problem(cancel(shop, payment_id)) == (409, "invalid-transition")

    assert state_of(rows, payment_id)["status"] == status


def test_a_payment_on_its_way_is_resumed_by_what_its_session_says(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference, _ = opened(shop)
    intent = shop.fake.submit(reference, "later")
    tell(shop, shop.fake.intent_event("processing", intent["id"]))
    with shop.app.app_context():
        context = _context()
        deadlines = Deadlines.at(context.at, shop.app.config["SETTINGS"])
        assert resume.resume(payment_id, deadlines, context) == expire.ExpiryResult.LEFT
        shop.fake.finish(reference, paid=False)
        assert resume.resume(payment_id, deadlines, context) == expire.ExpiryResult.FOLLOWED

    assert state_of(rows, payment_id)["status"] == "failed"


def test_a_payment_on_its_way_is_resumed_though_its_session_was_told_to_have_ended(shop: StripeApp, rows: Rows) -> None:
    """The events come in the wrong order: that the money did not come, and then that it is on its way."""
    payment_id, reference, _ = opened(shop)
    intent = shop.fake.submit(reference, "later")
    on_its_way = shop.fake.intent_event("processing", intent["id"])
    shop.fake.finish(reference, paid=False)
    tell(shop, shop.fake.session_event("async_payment_failed", reference))
    tell(shop, on_its_way)
    assert (state_of(rows, payment_id)["status"], sessions(rows)) == ("processing", [(1, "expired")])

    with shop.app.app_context():
        context = _context()
        deadlines = Deadlines.at(context.at, shop.app.config["SETTINGS"])
        assert resume.resume(payment_id, deadlines, context) == expire.ExpiryResult.FOLLOWED

    assert state_of(rows, payment_id)["status"] == "failed"


def test_a_refund_that_is_told_of_before_the_money_is_not_lost(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference, _ = opened(shop)
    intent = shop.fake.submit(reference)
    shop.fake.refund_in_dashboard(intent["id"], 200_000)
    tell(shop, shop.fake.charge_refunded(intent["id"]))

    tell(shop, shop.fake.session_event("completed", reference))

    state = state_of(rows, payment_id)
    assert (state["received_minor"], state["refunded_minor"]) == (500_000, 200_000)


def test_the_page_takes_the_money_and_leads_back(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference, data = opened(shop)
    page = requests.get(data["redirect_url"], timeout=PATIENCE_SECONDS)
    assert "5000.00 PHP" in page.text

    def send(do: str) -> requests.Response:
        url: str = data["redirect_url"]
        return requests.post(url, data={"do": do}, timeout=PATIENCE_SECONDS, allow_redirects=False)

    assert "declined" in send("decline").text
    paid = send("pay")
    assert (paid.status_code, paid.headers["Location"]) == (303, "https://pay.example.org/pay/return")
    assert "ended" in send("pay").text
    tell(shop, shop.fake.session_event("completed", reference))
    assert state_of(rows, payment_id)["status"] == "completed"
    assert [charge["status"] for charge in shop.fake.charges.values()] == ["failed", "succeeded"]


@pytest.mark.parametrize("member", ["status", "payment_status", "amount_total", "currency", "id"])
def test_a_session_in_an_unknown_shape_is_kept_unread(shop: StripeApp, rows: Rows, member: str) -> None:
    payment_id, reference, _ = opened(shop)
    shop.fake.submit(reference)
    event = shop.fake.session_event("completed", reference)
    event["data"]["object"][member] = ["?"]

    tell(shop, event)

    assert state_of(rows, payment_id)["status"] == "pending"
    assert rows.count("webhook_events") == 1


def test_production_needs_to_know_its_own_address_where_patients_are_led_away() -> None:
    settings = {**PRODUCTION, "STRIPE_API_KEY": "sk_live_1"}
    with (
        pytest.raises(ConfigError, match=r"^PUBLIC_URL is required in production: stripe "),
        app_with("sqlite:///unused.db", **settings),
    ):
        pass
    for more in ({"PUBLIC_URL": "https://pay.example.org"}, {"STRIPE_CHECKOUT": "elements"}):
        with app_with("sqlite:///unused.db", **settings, **more) as app:
            assert GatewayName.STRIPE in app.extensions["gateways"]


@long_on_sqlite
def test_fifty_checkouts_at_once_open_one_session(database: Database, people: People, rows: Rows) -> None:
    patient = {"GATEWAY_TIMEOUT": "30", "REFUND_LEASE": "60", "STRIPE_CHECKOUT": "hosted"}
    with fake_stripe() as fake, Service.started(database.url, **stripe_settings(fake, **patient)) as service:
        payment_id = service.pay(people.patient, 5, "k").json()["data"]["payment_id"]
        path = f"/payments/{payment_id}/checkout"

        def click() -> requests.Response:
            answer = service.post(people.patient, path, {})
            while answer.status_code == 503:  # more than have a place click at the same moment
                assert answer.json()["type"].endswith("/gateway-busy")
                time.sleep(0.1)  # sooner than it asks for
                answer = service.post(people.patient, path, {})
            return answer

        answers = at_once([click] * CLICKS)

        assert statuses(answers) == {200: CLICKS}
        assert len({answer.json()["data"]["redirect_url"] for answer in answers}) == 1
        assert (len(fake.sessions), sessions(rows)) == (1, [(1, "open")])
        assert len(service.pids_that_served()) >= 2
