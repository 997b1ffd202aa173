"""Payments and refunds by PayMongo, from the API to the look-alike's books and back. Each test counts both sides."""

import json
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests
from flask import Flask

from payments_app import clock
from payments_app.gateways.registry import PLACES
from payments_app.payments.expire import expire
from payments_app.payments.models.event import AuditContext
from payments_app.refunds import service
from tests.gateway_webhooks import state_of, trail_of
from tests.refunds.test_resume import grow_old
from tests.support.apps import app_with
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.fake_gateway import Mode
from tests.support.fake_paymongo import FakePayMongo
from tests.support.paymongo_apps import PayMongoApp, fake_paymongo, paymongo_settings
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import at_once, statuses
from tests.support.stripe_apps import refund, resume_refunds
from tests.support.waiting import PATIENCE_SECONDS

# Not more than the app has connections for.
FEW = PLACES  # more would be refused

pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture(scope="module")
def module_shop(database: Database) -> Iterator[tuple[FakePayMongo, Flask]]:
    with fake_paymongo() as fake, app_with(database.url, **paymongo_settings(fake)) as app:
        yield fake, app


@pytest.fixture
def shop(module_shop: tuple[FakePayMongo, Flask], people: People) -> Iterator[PayMongoApp]:
    fake, app = module_shop
    yield PayMongoApp(fake, app, people.seen_by(app))
    fake.reset()


def context() -> AuditContext:
    return AuditContext("system:test", None, clock.now())


def end_in_time(shop: PayMongoApp, payment_id: int) -> str:
    """What ``payments expire`` does with it."""
    with shop.app.app_context():
        return expire(payment_id, context())


def assert_completed(rows: Rows, payment_id: int, transaction_id: str) -> None:
    state = state_of(rows, payment_id)
    assert (state["status"], state["transaction_id"], state["received_minor"], state["needs_review"]) == (
        "completed",
        transaction_id,
        500_000,
        False,
    )
    assert trail_of(rows, payment_id).count("payment.completed") == 1


# Paying


def test_a_patient_pays_on_paymongos_page_and_a_webhook_completes_the_payment(shop: PayMongoApp, rows: Rows) -> None:
    payment_id = shop.create()
    opened = shop.check_out(payment_id)
    assert "client_secret" not in opened
    url = opened["redirect_url"]
    page = requests.get(url, timeout=PATIENCE_SECONDS).text
    assert ("PHP 5,000.00" in page, "Pay with gcash" in page) == (True, True)
    assert state_of(rows, payment_id)["status"] == "pending"

    requests.post(url, data={"do": "fail"}, timeout=PATIENCE_SECONDS)
    back = requests.post(url, data={"do": "gcash"}, timeout=PATIENCE_SECONDS, allow_redirects=False)
    shop.tell(shop.fake.session_paid(opened["reference"]))

    assert back.status_code == 303
    assert_completed(rows, payment_id, shop.fake.paid_by(opened["reference"]))
    assert [len(shop.fake.sessions), len(shop.fake.payments)] == [1, 2]  # one of them failed


def test_all_events_of_one_payment_in_any_order_complete_it_once(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, session_id = shop.open()
    failed_id = shop.fake.decline(session_id)
    shop.tell(shop.fake.payment_event("failed", failed_id))
    assert trail_of(rows, payment_id)[-1] == "payment.attempt_failed"
    transaction_id = shop.fake.pay(session_id)
    events = [
        shop.fake.payment_event("paid", transaction_id),
        shop.fake.session_paid(session_id),
        shop.fake.payment_event("paid", transaction_id),
        shop.fake.payment_event("failed", failed_id),
    ]
    for event in [*events, *events]:
        shop.tell(event)

    assert_completed(rows, payment_id, transaction_id)
    assert state_of(rows, payment_id)["version"] == 1
    assert rows.count("webhook_events") == 5


def test_a_confirm_is_looked_up(shop: PayMongoApp, rows: Rows) -> None:
    mine, session_id = shop.open(5)
    other, other_session = shop.open(6)
    transaction_id = shop.fake.pay(session_id)
    pending_id = shop.fake.start_processing(other_session)

    for wrong in (transaction_id, pending_id, "pay_000", "cs_1", session_id):
        assert shop.people.patient.confirm(other, wrong).status_code == 402
    assert state_of(rows, other)["status"] == "pending"

    assert shop.people.patient.confirm(mine, transaction_id).status_code == 200
    assert_completed(rows, mine, transaction_id)


def test_the_same_session_is_given_again(shop: PayMongoApp) -> None:
    payment_id = shop.create()

    assert shop.check_out(payment_id)["redirect_url"] == shop.check_out(payment_id)["redirect_url"]
    assert len(shop.fake.sessions) == 1


def test_money_that_a_checkout_finds_completes_the_payment(shop: PayMongoApp, rows: Rows) -> None:
    """Paid, and the webhook was lost."""
    payment_id, session_id = shop.open()
    transaction_id = shop.fake.pay(session_id)

    answer = shop.people.patient.post(f"/payments/{payment_id}/checkout")

    assert answer.status_code == 409
    assert_completed(rows, payment_id, transaction_id)


def test_a_cancel_ends_the_session_first(shop: PayMongoApp, rows: Rows) -> None:
    unpaid, session_id = shop.open(5)
    paid, paid_session = shop.open(6)
    transaction_id = shop.fake.pay(paid_session)

    assert shop.people.patient.post(f"/payments/{unpaid}/cancel").status_code == 200
    assert shop.people.patient.post(f"/payments/{paid}/cancel").status_code == 409

    assert shop.fake.sessions[session_id]["attributes"]["status"] == "expired"
    assert state_of(rows, unpaid)["status"] == "cancelled"
    assert_completed(rows, paid, transaction_id)


@pytest.mark.parametrize("mode", ["drop", "error", "error_before"])
def test_a_cancel_without_an_answer_changes_nothing(shop: PayMongoApp, rows: Rows, mode: Mode) -> None:
    payment_id, _ = shop.open()
    shop.fake.misbehave(mode, path="/v1/checkout_sessions")

    assert shop.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 503
    assert state_of(rows, payment_id)["status"] == "pending"
    assert shop.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200
    assert state_of(rows, payment_id)["status"] == "cancelled"


def test_many_checkouts_at_once_open_one_session(shop: PayMongoApp, rows: Rows) -> None:
    """PayMongo would open one for each, so all but one have to wait; no session is left that nobody knows."""
    payment_id = shop.create()

    def ask() -> ApiResponse:
        return shop.people.seen_by(shop.app).patient.post(f"/payments/{payment_id}/checkout")

    answers = at_once([ask] * FEW)

    assert set(statuses(answers)) <= {200, 409}
    assert all(answer.json["retryable"] for answer in answers if answer.status_code == 409)
    assert len(shop.fake.sessions) == rows.count("gateway_sessions") == 1
    assert shop.check_out(payment_id)["reference"] in shop.fake.sessions


def test_many_deliveries_at_once_complete_the_payment_once(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, session_id = shop.open()
    transaction_id = shop.fake.pay(session_id)
    events = [shop.fake.session_paid(session_id), shop.fake.payment_event("paid", transaction_id)] * (FEW // 2)
    bodies = [json.dumps(event).encode() for event in events]

    answers = at_once([partial(shop.send, body, shop.fake.sign(body)) for body in bodies])

    assert set(statuses(answers)) == {200}
    assert_completed(rows, payment_id, transaction_id)
    assert state_of(rows, payment_id)["version"] == 1


# Late money, and money by other sessions


@pytest.mark.parametrize("ends_as", ["expired", "cancelled"])
def test_money_after_the_end_completes_or_is_kept_for_staff(shop: PayMongoApp, rows: Rows, ends_as: str) -> None:
    payment_id, session_id = shop.open()
    if ends_as == "expired":
        assert end_in_time(shop, payment_id) == "expired"
    else:
        shop.people.patient.post(f"/payments/{payment_id}/cancel")
    assert state_of(rows, payment_id)["status"] == ends_as

    # GCash was chosen before: its link lives on.
    transaction_id = shop.fake.pay(session_id, late=True)
    shop.tell(shop.fake.session_paid(session_id))
    shop.tell(shop.fake.payment_event("paid", transaction_id))

    if ends_as == "expired":
        assert_completed(rows, payment_id, transaction_id)
        return
    state = state_of(rows, payment_id)
    assert (state["status"], state["received_minor"], state["needs_review"]) == ("cancelled", 500_000, True)
    assert refund(shop.people.admin, payment_id).status_code == 200
    assert not state_of(rows, payment_id)["needs_review"]
    assert shop.fake.refunded_total(transaction_id) == 500_000


def test_a_payment_that_was_paid_in_time_is_not_expired(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, session_id = shop.open()
    transaction_id = shop.fake.pay(session_id)

    assert end_in_time(shop, payment_id) == "followed"

    assert_completed(rows, payment_id, transaction_id)


def test_a_session_that_was_opened_without_an_answer_is_one_of_two_that_may_be_paid(
    shop: PayMongoApp, rows: Rows
) -> None:
    """Keys are not remembered, so another session is opened; money by the first is found by its metadata."""
    payment_id = shop.create()
    shop.fake.misbehave("drop", path="/v1/checkout_sessions")
    assert shop.people.patient.post(f"/payments/{payment_id}/checkout").status_code == 503
    known = shop.check_out(payment_id)["reference"]
    (lost,) = set(shop.fake.sessions) - {known}

    first = shop.fake.pay(lost)
    shop.tell(shop.fake.session_paid(lost))
    assert_completed(rows, payment_id, first)
    assert not shop.fake.can_be_paid(known)
    second = shop.fake.pay(known, late=True)  # the wallet was chosen before
    for event in (shop.fake.session_paid(known), shop.fake.payment_event("paid", second)):
        shop.tell(event)

    state = state_of(rows, payment_id)
    assert (state["status"], state["transaction_id"], state["received_minor"]) == ("completed", first, 500_000)
    assert (state["needs_review"], state["version"]) == (True, 2)
    # Both events tell of the same money, which the trail names.
    named = rows.one("SELECT reference FROM payment_events WHERE event = 'payment.paid_again'")
    assert named == {"reference": second}
    assert len(shop.fake.payments) == 2


def test_a_session_that_ended_is_followed_by_another_and_money_by_the_first_still_counts(
    shop: PayMongoApp, rows: Rows
) -> None:
    payment_id, first = shop.open()
    shop.fake.end(first)

    second = shop.check_out(payment_id)["reference"]

    assert second != first
    assert [each["attributes"]["status"] for each in shop.fake.sessions.values()] == ["expired", "active"]
    transaction_id = shop.fake.pay(first, late=True)
    shop.tell(shop.fake.session_paid(first))
    assert_completed(rows, payment_id, transaction_id)


def test_a_payment_that_does_not_say_what_it_is_for_completes_by_its_session(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, session_id = shop.open()
    transaction_id = shop.fake.pay(session_id)
    shop.fake.left_out = {"payment.metadata", "session.metadata"}

    shop.tell(shop.fake.payment_event("paid", transaction_id))
    assert state_of(rows, payment_id)["status"] == "pending"
    shop.tell(shop.fake.session_paid(session_id))

    assert_completed(rows, payment_id, transaction_id)


@pytest.mark.parametrize("attributes", [{"amount": 499_999}, {"currency": "USD"}], ids=str)
def test_money_that_does_not_fit_the_bill_is_for_staff_to_see(
    shop: PayMongoApp, rows: Rows, attributes: dict[str, Any]
) -> None:
    payment_id, session_id = shop.open()
    shop.fake.tamper("payments", shop.fake.pay(session_id), **attributes)

    shop.tell(shop.fake.session_paid(session_id))

    state = state_of(rows, payment_id)
    assert (state["status"], state["needs_review"]) == ("pending", True)


# Webhooks


def test_an_event_that_is_not_paymongos_leaves_no_trace(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, session_id = shop.open()
    shop.fake.pay(session_id)
    body = json.dumps(shop.fake.session_paid(session_id)).encode()

    for signature in (None, "", shop.fake.sign(body, secret="whsk_other"), shop.fake.sign(body, at=1)):
        answer = shop.send(body, signature)
        assert (answer.status_code, answer.json["type"].rpartition("/")[2]) == (400, "webhook-not-genuine")
    of_other_mode = shop.send(body, shop.fake.sign(body, name="te"))
    assert of_other_mode.json["type"].endswith("/webhook-of-other-mode")

    assert (rows.count("webhook_events"), state_of(rows, payment_id)["status"]) == (0, "pending")


@pytest.mark.parametrize("mode", ["drop", "error_before"])
def test_an_event_comes_again_if_paymongo_does_not_say_what_became_of_it(
    shop: PayMongoApp, rows: Rows, mode: Mode
) -> None:
    payment_id, session_id = shop.open()
    transaction_id = shop.fake.pay(session_id)
    body = json.dumps(shop.fake.session_paid(session_id)).encode()
    shop.fake.misbehave(mode, method="GET", path="/v1/checkout_sessions")

    first = shop.send(body, shop.fake.sign(body))

    assert first.status_code == 503
    assert "Retry-After" in first.headers
    assert rows.count("webhook_events") == 0
    assert shop.send(body, shop.fake.sign(body)).json["data"] == {"received": True}
    assert_completed(rows, payment_id, transaction_id)


def test_an_event_that_money_hangs_on_and_nobody_can_read_is_kept_and_logged(
    shop: PayMongoApp, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    _, session_id = shop.open()
    event = shop.fake.event("payment.of_next_year", shop.fake.payments[shop.fake.pay(session_id)])

    shop.tell(event)

    assert "Webhook: unreadable" in caplog.text
    assert rows.one("SELECT gateway, type FROM webhook_events") == {
        "gateway": "paymongo",
        "type": "payment.of_next_year",
    }


# Refunds


def lose(shop: PayMongoApp, payment_id: int, mode: Mode) -> int:
    """A refund whose answer is lost; its id."""
    shop.fake.misbehave(mode, path="/v1/refunds")
    answer = refund(shop.people.admin, payment_id, key="k", amount=2000)
    assert (answer.status_code, answer.json["data"]["refund"]["status"]) == (202, "unknown")
    refund_id: int = answer.json["data"]["refund"]["id"]
    return refund_id


def status_of(rows: Rows, refund_id: int) -> str:
    status: str = rows.one("SELECT status FROM refunds WHERE id = :id", id=refund_id)["status"]
    return status


def test_a_payment_is_refunded_in_parts(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, transaction_id = shop.paid()

    assert refund(shop.people.admin, payment_id, amount=2000).status_code == 200
    assert refund(shop.people.admin, payment_id).status_code == 200
    for made in shop.fake.refunds_of(transaction_id):
        shop.tell(shop.fake.refund_event("payment.refund.updated", made["id"]))
    shop.tell(shop.fake.payment_event("refunded", transaction_id))

    assert state_of(rows, payment_id)["status"] == "refunded"
    assert rows.count("refunds") == len(shop.fake.refunds) == 2
    assert shop.fake.refunded_total(transaction_id) == 500_000


@pytest.mark.parametrize("left_out", [[], ["payment.refunds", "refund.metadata"], ["refund.notes"]], ids=str)
def test_a_refund_whose_answer_was_lost_is_looked_up_and_not_sent_again(
    shop: PayMongoApp, rows: Rows, left_out: list[str]
) -> None:
    payment_id, transaction_id = shop.paid()
    refund_id = lose(shop, payment_id, "drop")
    shop.fake.left_out = set(left_out)

    for _ in range(2):
        resume_refunds(shop.app)

    assert status_of(rows, refund_id) == "succeeded"
    assert shop.fake.count("POST", "/v1/refunds") == 1
    assert shop.fake.refunded_total(transaction_id) == 200_000


def test_a_webhook_finishes_a_refund_whose_answer_was_lost(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, transaction_id = shop.paid()
    refund_id = lose(shop, payment_id, "drop")
    (made,) = shop.fake.refunds_of(transaction_id)

    shop.tell(shop.fake.refund_event("refund.succeeded", made["id"]))

    assert status_of(rows, refund_id) == "succeeded"
    assert state_of(rows, payment_id)["refunded_minor"] == 200_000


def send_again(shop: PayMongoApp, refund_id: int) -> None:
    with shop.app.app_context():
        assert service.send_again(refund_id, lease_seconds=4, context=context()) is not None


def test_a_refund_that_was_never_made_is_sent_again_by_staff_alone(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, transaction_id = shop.paid()
    refund_id = lose(shop, payment_id, "error_before")
    for hours in (1, 23.5):
        grow_old(rows, hours)
        resume_refunds(shop.app)
        send_again(shop, refund_id)
    grow_old(rows, 24.5)
    resume_refunds(shop.app)
    assert (status_of(rows, refund_id), shop.fake.count("POST", "/v1/refunds")) == ("unknown", 1)

    grow_old(rows, 24.5)
    send_again(shop, refund_id)

    assert (status_of(rows, refund_id), shop.fake.count("POST", "/v1/refunds")) == ("succeeded", 2)
    assert shop.fake.refunded_total(transaction_id) == 200_000


def test_a_refund_that_nobody_can_tell_apart_is_left_to_staff_who_can_close_it(shop: PayMongoApp, rows: Rows) -> None:
    """Neither metadata nor notes come back: it is recorded as made elsewhere, and ours can be given up."""
    payment_id, transaction_id = shop.paid()
    refund_id = lose(shop, payment_id, "drop")
    shop.fake.left_out = {"refund.metadata", "refund.notes"}
    grow_old(rows, 24.5)
    resume_refunds(shop.app)
    assert status_of(rows, refund_id) == "unknown"

    shop.tell(shop.fake.payment_event("refunded", transaction_id))
    grow_old(rows, 24.5)
    resume_refunds(shop.app)
    assert status_of(rows, refund_id) == "unknown"
    with shop.app.app_context():
        service.give_up(refund_id, lease_seconds=4, context=context())

    assert status_of(rows, refund_id) == "failed"
    state = state_of(rows, payment_id)
    assert (state["refunded_minor"], state["refund_reserved_minor"]) == (200_000, 0)
    assert shop.fake.refunded_total(transaction_id) == 200_000


def test_many_refunds_at_once_return_no_more_than_came(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, transaction_id = shop.paid()
    admins = [shop.people.seen_by(shop.app).admin for _ in range(FEW)]

    answers = at_once([partial(refund, each, payment_id, key=f"k-{n}", amount=2000) for n, each in enumerate(admins)])

    assert statuses(answers).get(200) == shop.fake.count("POST", "/v1/refunds") <= 2
    assert shop.fake.refunded_total(transaction_id) == state_of(rows, payment_id)["refunded_minor"] <= 500_000


def test_a_first_call_that_arrives_after_staff_sent_it_again_is_seen(shop: PayMongoApp, rows: Rows) -> None:
    """Keys are ignored, so there are two: the second is not hidden by having our id."""
    payment_id, transaction_id = shop.paid()
    refund_id = lose(shop, payment_id, "late")
    grow_old(rows, 24.5)
    send_again(shop, refund_id)
    shop.fake.apply_late()
    for made in shop.fake.refunds_of(transaction_id):
        shop.tell(shop.fake.refund_event("payment.refund.updated", made["id"]))

    assert shop.fake.refunded_total(transaction_id) == 400_000
    assert state_of(rows, payment_id)["refunded_minor"] == 400_000
    assert rows.count("refunds") == 2


def test_a_refund_that_is_refused_has_failed_and_frees_its_amount(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, _ = shop.paid()
    shop.fake.misbehave("refuse", path="/v1/refunds")

    refused = refund(shop.people.admin, payment_id)

    assert refused.status_code == 402
    assert "balance does not cover" in json.dumps(refused.json)
    assert state_of(rows, payment_id)["refund_reserved_minor"] == 0
    assert refund(shop.people.admin, payment_id).status_code == 200


def test_a_refund_that_fails_later_is_for_review(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, transaction_id = shop.paid()
    shop.fake.refunds_start_as = "pending"
    assert refund(shop.people.admin, payment_id, amount=2000).status_code == 202
    (made,) = shop.fake.refunds_of(transaction_id)
    shop.fake.settle_refund(made["id"], "succeeded")
    resume_refunds(shop.app)
    assert state_of(rows, payment_id)["status"] == "partially_refunded"
    shop.fake.settle_refund(made["id"], "failed")

    shop.tell(shop.fake.refund_event("payment.refund.updated", made["id"]))

    state = state_of(rows, payment_id)
    assert (state["refunded_minor"], state["refund_reserved_minor"], state["needs_review"]) == (0, 0, True)


def test_a_refund_in_the_dashboard_is_recorded(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, transaction_id = shop.paid()
    shop.fake.refund_in_dashboard(transaction_id, 100_000)

    shop.tell(shop.fake.payment_event("refunded", transaction_id))
    shop.tell(shop.fake.payment_event("refunded", transaction_id))

    assert state_of(rows, payment_id)["refunded_minor"] == 100_000
    assert rows.count("refunds") == 1


def test_money_by_qr_ph_is_not_refundable(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, _ = shop.paid(method="bank_transfer")

    refused = refund(shop.people.admin, payment_id)

    assert (refused.status_code, refused.json["type"].rpartition("/")[2]) == (422, "not-refundable")
    assert (rows.count("refunds"), shop.fake.count("POST", "/v1/refunds")) == (0, 0)


# Secrets


def test_no_secret_and_no_address_to_pay_at_is_logged_or_stored(
    shop: PayMongoApp, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    payment_id = shop.create()
    opened = shop.check_out(payment_id)
    shop.fake.pay(opened["reference"])
    shop.tell(shop.fake.session_paid(opened["reference"]))
    lose(shop, payment_id, "error_before")
    resume_refunds(shop.app)

    written = caplog.text + json.dumps(rows.all("SELECT * FROM gateway_sessions"), default=str)
    written += json.dumps(rows.all("SELECT * FROM idempotency_keys"), default=str)
    for secret in (shop.fake.api_key, shop.fake.webhook_secret, "/checkout/cs_"):
        assert secret not in written
