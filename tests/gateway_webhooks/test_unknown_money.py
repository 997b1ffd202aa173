"""Events about money that we do not know yet: a refund before its payment, and a payment that the gateway denies."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway_webhooks import state_of, trail_of
from tests.gateway_webhooks import tell as tell_of_stripe
from tests.payments.test_checkout import checkout, create
from tests.support.client import ApiResponse, client_of
from tests.support.paymongo_apps import PayMongoApp
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp

pytestmark = pytest.mark.usefixtures("audited")

LONG_AGO_SECONDS = 31 * 60


@pytest.fixture
def wallet(paymongo_app: PayMongoApp) -> PayMongoApp:
    return paymongo_app


@pytest.fixture
def cards(stripe_apps: Callable[..., StripeApp]) -> StripeApp:
    return stripe_apps(STRIPE_CHECKOUT="hosted", PUBLIC_URL="https://pay.example.org")


class Early:
    """A payment that was paid and partly refunded at a gateway, of which nobody has told us yet."""

    def __init__(self, payment_id: int, refund: Callable[[], ApiResponse], money: Callable[[], Any], shop: Any) -> None:
        self.payment_id, self.tell_of_refund, self.tell_of_money, self.fake = payment_id, refund, money, shop.fake


@pytest.fixture(params=["stripe", "paymongo"])
def early(request: pytest.FixtureRequest) -> Early:
    if request.param == "stripe":
        return paid_by_card(request.getfixturevalue("cards"))
    return paid_by_wallet(request.getfixturevalue("wallet"))


def paid_by_card(shop: StripeApp) -> Early:
    payment_id = create(shop.people, 5)
    reference = checkout(shop.people.patient, payment_id).json["data"]["reference"]
    intent = shop.fake.submit(reference)["id"]
    made = shop.fake.refund_in_dashboard(intent, 100_000)
    event, money = shop.fake.refund_event("created", made["id"]), shop.fake.session_event("completed", reference)
    body = json.dumps(event).encode()

    def refund() -> ApiResponse:
        headers = {"Content-Type": "application/json", "Stripe-Signature": shop.fake.sign(body)}
        return client_of(shop.app).post("/api/v1/webhooks/stripe", data=body, headers=headers)

    return Early(payment_id, refund, lambda: tell_of_stripe(shop, money), shop)


def paid_by_wallet(shop: PayMongoApp) -> Early:
    payment_id, session_id = shop.open()
    made = shop.fake.refund_in_dashboard(shop.fake.pay(session_id), 100_000)
    body = json.dumps(shop.fake.refund_event("refund.succeeded", made["id"])).encode()
    money = shop.fake.session_paid(session_id)
    return Early(payment_id, lambda: shop.send(body, shop.fake.sign(body)), lambda: shop.tell(money), shop)


def assert_refunded_in_part(rows: Rows, payment_id: int) -> None:
    state = state_of(rows, payment_id)
    assert (state["status"], state["received_minor"], state["refunded_minor"], state["needs_review"]) == (
        "partially_refunded",
        500_000,
        100_000,
        False,
    )
    assert rows.count("refunds") == 1


# A refund that was made in the dashboard, and is told of before its money


def test_a_refund_before_its_money_is_recorded(early: Early, rows: Rows) -> None:
    for _ in range(2):
        assert early.tell_of_refund().status_code == 200
    assert rows.count("refunds") == 1

    early.tell_of_money()

    assert_refunded_in_part(rows, early.payment_id)


def test_while_the_gateway_does_not_say_whose_money_it_is_the_event_comes_again(early: Early, rows: Rows) -> None:
    early.fake.misbehave("error_before", method="GET", path="/v1/pay")
    assert early.tell_of_refund().status_code == 503
    assert rows.count("webhook_events") == 0

    assert early.tell_of_refund().status_code == 200
    early.tell_of_money()

    assert_refunded_in_part(rows, early.payment_id)


def test_a_refund_of_money_that_names_no_payment_is_kept_and_recorded_if_it_is_sent_again(
    wallet: PayMongoApp, rows: Rows
) -> None:
    early = paid_by_wallet(wallet)
    wallet.fake.left_out = {"payment.metadata"}
    for _ in range(2):
        assert early.tell_of_refund().status_code == 200
    assert [rows.count("webhook_events", "payment_id IS NULL"), rows.count("refunds")] == [1, 0]
    early.tell_of_money()
    assert state_of(rows, early.payment_id)["status"] == "completed"

    for _ in range(2):  # as staff do in the gateway's dashboard
        assert early.tell_of_refund().status_code == 200

    assert_refunded_in_part(rows, early.payment_id)
    assert rows.count("webhook_events", "payment_id IS NULL") == 0


# A payment that an event names, and the gateway's own answer does not


def doubted(shop: PayMongoApp, *, age_seconds: int) -> tuple[int, str, list[bytes]]:
    """A payment that was not paid, its session, and both events that say that it was."""
    payment_id, session_id = shop.open()
    transaction_id, at = shop.fake.start_processing(session_id), int(time.time()) - age_seconds
    events = (
        shop.fake.session_paid(session_id, created_at=at),
        shop.fake.payment_event("paid", transaction_id, created_at=at),
    )
    return payment_id, session_id, [json.dumps(event).encode() for event in events]


def test_money_that_the_gateway_does_not_know_yet_is_told_again(wallet: PayMongoApp, rows: Rows) -> None:
    payment_id, session_id, events = doubted(wallet, age_seconds=0)
    for body in events:
        assert wallet.send(body, wallet.fake.sign(body)).status_code == 503
    assert rows.count("webhook_events") == 0

    wallet.fake.pay(session_id)
    for body in events:
        assert wallet.send(body, wallet.fake.sign(body)).status_code == 200

    assert state_of(rows, payment_id)["status"] == "completed"


def test_money_that_the_gateway_denies_for_half_an_hour_is_for_staff_and_the_webhook_stays_alive(
    wallet: PayMongoApp, rows: Rows
) -> None:
    payment_id, session_id, events = doubted(wallet, age_seconds=LONG_AGO_SECONDS)
    for body in [*events, *events]:
        assert wallet.send(body, wallet.fake.sign(body)).status_code == 200

    state = state_of(rows, payment_id)
    assert (state["status"], state["received_minor"], state["needs_review"]) == ("pending", 0, True)
    assert (state["version"], trail_of(rows, payment_id)[1:]) == (1, ["payment.paid_unconfirmed"])
    assert rows.count("webhook_events", "payment_id IS NULL") == 2

    wallet.fake.pay(session_id)
    for body in [*events, *events]:  # as staff do in the gateway's dashboard
        assert wallet.send(body, wallet.fake.sign(body)).status_code == 200

    state = state_of(rows, payment_id)
    assert (state["status"], state["received_minor"], state["version"]) == ("completed", 500_000, 2)
    # Nor does an event that the gateway denies take away what was paid.
    assert state["needs_review"]
