"""Payments that nobody finished: they end with their sessions, free their consultation, and late money is not lost."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine

from payments_app import clock
from payments_app.payments import expire, resume
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.expire import ExpiryResult
from payments_app.payments.models.event import AuditContext
from tests.gateway_webhooks import state_of, tell, trail_of
from tests.support.databases import Database
from tests.support.people import People
from tests.support.raw_rows import Raw
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card, stripe_app_on

INTENTS = "/v1/payment_intents"
PENDING_TTL = timedelta(minutes=30)
MANUAL_TTL = timedelta(days=7)
MOMENT = timedelta(seconds=10)

Age = Callable[[int, timedelta], None]


pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def age(engine: Engine) -> Age:
    """Make a payment older behind the app's back."""
    raw = Raw(engine)
    return lambda payment_id, by: raw.update("payments", payment_id, created_at=datetime.now(UTC) - by)


def deadlines() -> Deadlines:
    return Deadlines(now=clock.now(), pending_ttl=PENDING_TTL, by_hand_ttl=MANUAL_TTL, by_hand={"manual"})


def context() -> AuditContext:
    return AuditContext("command:expire", None, clock.now())


def overdue(app: Flask) -> list[int]:
    with app.app_context():
        found = list(expire.find_overdue(deadlines()))
        assert expire.count_overdue(deadlines()) == len(found)
    return found


def expire_payment(app: Flask, payment_id: int) -> ExpiryResult:
    with app.app_context():
        return expire.expire(payment_id, context())


def resume_processing(app: Flask, payment_id: int) -> ExpiryResult:
    with app.app_context():
        assert payment_id in list(resume.find_processing())
        return resume.resume(payment_id, deadlines(), context())


def create(people: People, consultation_id: int = 5, **members: Any) -> int:
    payment_id: int = people.patient.pay(consultation_id, **members).json["data"]["payment_id"]
    return payment_id


def invoice_status(rows: Rows, payment_id: int) -> str:
    status: str = rows.one("SELECT status FROM invoices WHERE payment_id = :id", id=payment_id)["status"]
    return status


def session_status(rows: Rows, payment_id: int) -> str:
    status: str = rows.one("SELECT status FROM gateway_sessions WHERE payment_id = :id", id=payment_id)["status"]
    return status


def expired_with_a_session_left(stripe_app: StripeApp, rows: Rows, consultation_id: int = 5) -> tuple[int, str]:
    """An expired payment whose session we had lost sight of, so that it can still be paid; and that session."""
    payment_id, reference = open_by_card(stripe_app.people, consultation_id)
    rows.execute("DELETE FROM gateway_sessions WHERE payment_id = :id", id=payment_id)
    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.EXPIRED
    assert stripe_app.fake.intents[reference]["status"] == "requires_payment_method"
    return payment_id, reference


# Which payments are overdue


def test_only_pendings_past_their_time_are_overdue_oldest_first(stripe_app: StripeApp, age: Age) -> None:
    fresh, old, older, paid, processing, cancelled = (create(stripe_app.people, number) for number in range(1, 7))
    assert fresh
    stripe_app.people.patient.post(f"/payments/{cancelled}/cancel")
    paid_reference = stripe_app.people.patient.post(f"/payments/{paid}/checkout").json["data"]["reference"]
    stripe_app.fake.pay(paid_reference)
    assert stripe_app.people.patient.confirm(paid, paid_reference).status_code == 200
    moving = stripe_app.people.patient.post(f"/payments/{processing}/checkout").json["data"]["reference"]
    stripe_app.fake.start_processing(moving)
    tell(stripe_app, stripe_app.fake.intent_event("processing", moving))
    for payment_id, by in (
        (fresh, PENDING_TTL - MOMENT),
        (old, PENDING_TTL + MOMENT),
        (older, PENDING_TTL + 2 * MOMENT),
        (paid, timedelta(days=30)),
        (processing, timedelta(days=30)),
        (cancelled, timedelta(days=30)),
    ):
        age(payment_id, by)

    assert overdue(stripe_app.app) == [older, old]


def test_a_manual_payment_is_overdue_after_a_week(stripe_app: StripeApp, age: Age, rows: Rows) -> None:
    young, old = (create(stripe_app.people, number, payment_method="bank_transfer") for number in (1, 2))
    stripe_app.people.patient.post(f"/payments/{old}/checkout")
    age(young, MANUAL_TTL - MOMENT)
    age(old, MANUAL_TTL + MOMENT)

    assert overdue(stripe_app.app) == [old]
    assert expire_payment(stripe_app.app, old) == ExpiryResult.EXPIRED
    assert state_of(rows, old)["status"] == "expired"
    assert session_status(rows, old) == "cancelled"
    assert stripe_app.fake.received == []


def test_overdue_payments_are_found_in_batches_without_losing_one(
    stripe_app: StripeApp, age: Age, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the three are of the same moment, with the end of a batch between them."""
    monkeypatch.setattr(expire, "BATCH_SIZE", 1)
    payment_ids = [create(stripe_app.people, number) for number in (1, 2, 3)]
    for payment_id in payment_ids:
        age(payment_id, timedelta(days=1))

    assert sorted(overdue(stripe_app.app)) == payment_ids


# What expiring does


def test_expiring_ends_the_session_voids_the_invoice_and_frees_the_consultation(
    stripe_app: StripeApp, rows: Rows
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)

    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.EXPIRED

    assert stripe_app.fake.intents[reference]["status"] == "canceled"
    assert (state_of(rows, payment_id)["status"], state_of(rows, payment_id)["version"]) == ("expired", 1)
    assert session_status(rows, payment_id) == "cancelled"
    assert invoice_status(rows, payment_id) == "void"
    assert trail_of(rows, payment_id) == ["payment.created", "payment.expired"]
    assert rows.one("SELECT actor FROM payment_events WHERE to_status = 'expired'") == {"actor": "command:expire"}
    assert stripe_app.people.patient.pay(5).status_code == 201


def test_a_payment_without_a_session_expires_without_asking(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people)

    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.EXPIRED

    assert stripe_app.fake.received == []
    assert state_of(rows, payment_id)["status"] == "expired"


def test_a_payment_paid_in_the_last_moment_is_completed(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)

    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.FOLLOWED

    paid = state_of(rows, payment_id)
    assert (paid["status"], paid["received_minor"], paid["transaction_id"]) == ("completed", 500_000, reference)
    assert invoice_status(rows, payment_id) == "paid"
    assert session_status(rows, payment_id) == "succeeded"


def test_money_on_its_way_in_the_last_moment_makes_it_processing(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.start_processing(reference)

    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.FOLLOWED
    assert state_of(rows, payment_id)["status"] == "processing"


@pytest.mark.parametrize("mode", ["error_before", "error"])
def test_a_payment_whose_gateway_is_silent_is_left_for_the_next_time(
    stripe_app: StripeApp, rows: Rows, mode: Any
) -> None:
    payment_id, _ = open_by_card(stripe_app.people, 5)
    before = state_of(rows, payment_id)
    stripe_app.fake.misbehave(mode, path=INTENTS, times=None)
    stripe_app.fake.misbehave(mode, method="GET", path=INTENTS, times=None)

    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.LEFT
    assert state_of(rows, payment_id) == before
    assert session_status(rows, payment_id) == "open"
    assert trail_of(rows, payment_id) == ["payment.created"]

    stripe_app.fake.behave()
    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.EXPIRED
    assert state_of(rows, payment_id)["status"] == "expired"


def test_a_payment_whose_gateway_is_not_configured_any_more_is_left(
    stripe_app: StripeApp, app: Flask, rows: Rows
) -> None:
    payment_id, _ = open_by_card(stripe_app.people, 5)

    assert expire_payment(app, payment_id) == ExpiryResult.LEFT  # the app without Stripe
    assert state_of(rows, payment_id)["status"] == "pending"


def test_money_on_its_way_by_a_gateway_that_is_not_configured_any_more_is_left(
    stripe_app: StripeApp, app: Flask, rows: Rows
) -> None:
    payment_id, _ = processing_payment(stripe_app)

    assert resume_processing(app, payment_id) == ExpiryResult.LEFT
    assert state_of(rows, payment_id)["status"] == "processing"


def test_expiring_twice_changes_nothing_more(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, _ = open_by_card(stripe_app.people, 5)
    expire_payment(stripe_app.app, payment_id)
    before = state_of(rows, payment_id)
    asked_before = len(stripe_app.fake.received)

    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.FOLLOWED

    assert state_of(rows, payment_id) == before
    assert len(stripe_app.fake.received) == asked_before


def test_expiring_twice_at_once_has_one_effect(database: Database, people: People, rows: Rows) -> None:
    """Both have ended the session, each as far as it knows, before either writes."""
    with (
        stripe_app_on(database.url, people, GATEWAY_TIMEOUT="60", REFUND_LEASE="120") as stripe_app,
        ThreadPoolExecutor(2) as pool,
    ):
        payment_id, _ = open_by_card(stripe_app.people, 5)
        stripe_app.fake.misbehave("hang", path=INTENTS, times=2)
        asked = [pool.submit(expire_payment, stripe_app.app, payment_id) for _ in range(2)]
        stripe_app.fake.wait_until_hanging(2)
        stripe_app.fake.release()
        results = sorted(each.result() for each in asked)

    assert results == [ExpiryResult.EXPIRED, ExpiryResult.FOLLOWED]
    assert trail_of(rows, payment_id) == ["payment.created", "payment.expired"]
    assert invoice_status(rows, payment_id) == "void"


def test_a_patient_who_cancels_while_it_expires_is_one_of_two_winners(
    database: Database, people: People, rows: Rows
) -> None:
    with (
        stripe_app_on(database.url, people, GATEWAY_TIMEOUT="60", REFUND_LEASE="120") as stripe_app,
        ThreadPoolExecutor(1) as pool,
    ):
        payment_id, _ = open_by_card(stripe_app.people, 5)
        stripe_app.fake.misbehave("hang", path=INTENTS)
        expiring = pool.submit(expire_payment, stripe_app.app, payment_id)
        stripe_app.fake.wait_until_hanging()
        cancelled = stripe_app.people.patient.post(f"/payments/{payment_id}/cancel")
        stripe_app.fake.release()
        result = expiring.result()

    assert (cancelled.status_code, result) == (200, ExpiryResult.FOLLOWED)
    assert trail_of(rows, payment_id) == ["payment.created", "payment.cancelled"]


# Money that comes after the end


def test_an_expired_payment_paid_late_completes_while_its_consultation_is_free(
    stripe_app: StripeApp, rows: Rows
) -> None:
    payment_id, reference = expired_with_a_session_left(stripe_app, rows)
    stripe_app.fake.pay(reference)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    paid = state_of(rows, payment_id)
    assert (paid["status"], paid["received_minor"], paid["needs_review"]) == ("completed", 500_000, False)
    assert invoice_status(rows, payment_id) == "paid"
    assert stripe_app.people.patient.pay(5).status_code == 409


@pytest.mark.parametrize("who", ["patient", "admin"])
def test_an_expired_payment_that_the_gateway_has_the_money_of_can_be_confirmed(
    stripe_app: StripeApp, rows: Rows, who: str
) -> None:
    payment_id, reference = expired_with_a_session_left(stripe_app, rows)
    assert getattr(stripe_app.people, who).confirm(payment_id, reference).status_code == 402
    stripe_app.fake.pay(reference)

    answer = getattr(stripe_app.people, who).confirm(payment_id, reference)

    assert (answer.status_code, answer.json["data"]["status"]) == (200, "completed")
    assert answer.json["data"]["invoice"]["status"] == "paid"
    assert state_of(rows, payment_id)["received_minor"] == 500_000


def test_staff_confirm_an_expired_manual_payment(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people, payment_method="bank_transfer")
    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.EXPIRED

    assert stripe_app.people.patient.confirm(payment_id, "BT-1").status_code == 403
    assert stripe_app.people.admin.confirm(payment_id, "BT-1").status_code == 200
    assert state_of(rows, payment_id)["status"] == "completed"


QUARANTINED = {
    "status": "expired",
    "version": 2,
    "received_minor": 500_000,
    "refund_reserved_minor": 0,
    "refunded_minor": 0,
    "needs_review": True,
}


def assert_second_payment_untouched(stripe_app: StripeApp, other_id: int) -> None:
    shown = stripe_app.people.admin.get(f"/payments/{other_id}").json["data"]
    assert (shown["status"], shown["version"], shown["needs_review"]) == ("pending", 0, False)


def test_late_money_for_a_consultation_with_another_payment_is_quarantined(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = expired_with_a_session_left(stripe_app, rows)
    other_id = create(stripe_app.people)
    stripe_app.fake.pay(reference)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    assert state_of(rows, payment_id) == {**QUARANTINED, "transaction_id": reference}
    assert invoice_status(rows, payment_id) == "void"
    assert trail_of(rows, payment_id) == ["payment.created", "payment.expired", "payment.quarantined"]
    assert_second_payment_untouched(stripe_app, other_id)

    # The same news in another event is no more money.
    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))
    assert state_of(rows, payment_id) == {**QUARANTINED, "transaction_id": reference}


def test_a_confirm_of_late_money_names_the_payment_that_is_there_instead(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people, payment_method="bank_transfer")
    assert expire_payment(stripe_app.app, payment_id) == ExpiryResult.EXPIRED
    other_id = create(stripe_app.people)

    first = stripe_app.people.admin.confirm(payment_id, "BT-1", key="k")
    again = stripe_app.people.admin.confirm(payment_id, "BT-1", key="k")
    with_another_key = stripe_app.people.admin.confirm(payment_id, "BT-1", key="l")

    for answer in (first, again, with_another_key):
        assert answer.status_code == 409
        assert answer.json["type"].endswith("/active-payment-exists")
        assert answer.json["data"] == {
            "type": "existing",
            "payment_id": other_id,
            "existing_payment_id": other_id,
            "status": "pending",
        }
        assert answer.json["retryable"] is False
    assert state_of(rows, payment_id) == {**QUARANTINED, "transaction_id": "BT-1"}
    assert trail_of(rows, payment_id) == ["payment.created", "payment.expired", "payment.quarantined"]
    assert rows.count("idempotency_keys", "operation = 'confirm'") == 0
    assert_second_payment_untouched(stripe_app, other_id)


def test_quarantined_money_pays_no_other_payment(stripe_app: StripeApp, rows: Rows) -> None:
    """One transaction pays at most one payment, and what is kept for a refund is spoken for."""
    payment_id = create(stripe_app.people, 5, payment_method="bank_transfer")
    expire_payment(stripe_app.app, payment_id)
    other_id = create(stripe_app.people, 5, payment_method="bank_transfer")
    stripe_app.people.admin.confirm(payment_id, "BT-1")

    answer = stripe_app.people.admin.confirm(other_id, "BT-1")

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/transaction-already-used")
    assert state_of(rows, other_id)["received_minor"] == 0


def test_a_transaction_that_paid_another_payment_is_not_quarantined_too(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = create(stripe_app.people, 5, payment_method="bank_transfer")
    expire_payment(stripe_app.app, payment_id)
    other_id = create(stripe_app.people, 5, payment_method="bank_transfer")
    assert stripe_app.people.admin.confirm(other_id, "BT-1").status_code == 200

    answer = stripe_app.people.admin.confirm(payment_id, "BT-1")

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/transaction-already-used")
    assert state_of(rows, payment_id)["received_minor"] == 0
    assert state_of(rows, payment_id)["status"] == "expired"


def test_a_transaction_that_paid_another_consultation_completes_no_expired_payment(
    stripe_app: StripeApp, rows: Rows
) -> None:
    """The consultation is free, so it is M5's index alone that stands in the way."""
    payment_id = create(stripe_app.people, 5, payment_method="bank_transfer")
    expire_payment(stripe_app.app, payment_id)
    other_id = create(stripe_app.people, 6, payment_method="bank_transfer")
    assert stripe_app.people.admin.confirm(other_id, "BT-1").status_code == 200

    answer = stripe_app.people.admin.confirm(payment_id, "BT-1")

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/transaction-already-used")
    assert (state_of(rows, payment_id)["status"], state_of(rows, payment_id)["version"]) == ("expired", 1)


def test_refunding_quarantined_money_moves_amounts_only_and_ends_the_review(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = expired_with_a_session_left(stripe_app, rows)
    other_id = create(stripe_app.people)
    stripe_app.fake.pay(reference)
    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))
    path = f"/payments/{payment_id}/refund"

    assert stripe_app.people.admin.post(path, {"amount": 2000}).status_code == 200
    part = state_of(rows, payment_id)
    assert (part["status"], part["refunded_minor"], part["needs_review"]) == ("expired", 200_000, True)
    assert stripe_app.people.admin.post(path, {"amount": 4000}).status_code == 422
    assert stripe_app.people.admin.post(path).status_code == 200

    even = state_of(rows, payment_id)
    assert (even["status"], even["refunded_minor"], even["needs_review"]) == ("expired", 500_000, False)
    assert invoice_status(rows, payment_id) == "void"
    assert stripe_app.fake.refunded_total(reference) == 500_000
    assert stripe_app.people.admin.post(path).status_code == 409
    assert_second_payment_untouched(stripe_app, other_id)


def test_money_for_a_cancelled_payment_is_quarantined_though_its_consultation_is_free(
    stripe_app: StripeApp, rows: Rows
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    rows.execute("DELETE FROM gateway_sessions")
    assert stripe_app.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200
    stripe_app.fake.pay(reference)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    assert state_of(rows, payment_id) == {**QUARANTINED, "status": "cancelled", "transaction_id": reference}
    assert invoice_status(rows, payment_id) == "void"
    assert stripe_app.people.patient.pay(5).status_code == 201


# Money on its way


def processing_payment(stripe_app: StripeApp, consultation_id: int = 5) -> tuple[int, str]:
    payment_id, reference = open_by_card(stripe_app.people, consultation_id)
    stripe_app.fake.start_processing(reference)
    tell(stripe_app, stripe_app.fake.intent_event("processing", reference))
    return payment_id, reference


def test_money_that_has_arrived_completes_the_payment(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = processing_payment(stripe_app)
    stripe_app.fake.pay(reference)

    assert resume_processing(stripe_app.app, payment_id) == ExpiryResult.FOLLOWED

    paid = state_of(rows, payment_id)
    assert (paid["status"], paid["version"], paid["received_minor"]) == ("completed", 2, 500_000)
    assert invoice_status(rows, payment_id) == "paid"


def test_a_session_that_was_cancelled_cancels_the_payment(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = processing_payment(stripe_app)
    stripe_app.fake.tamper(reference, status="canceled")

    assert resume_processing(stripe_app.app, payment_id) == ExpiryResult.FOLLOWED

    assert state_of(rows, payment_id)["status"] == "cancelled"
    assert session_status(rows, payment_id) == "cancelled"
    assert invoice_status(rows, payment_id) == "void"


def test_money_still_on_its_way_is_left_however_late(stripe_app: StripeApp, rows: Rows, age: Age) -> None:
    payment_id, _ = processing_payment(stripe_app)
    age(payment_id, timedelta(days=30))
    before = state_of(rows, payment_id)

    assert resume_processing(stripe_app.app, payment_id) == ExpiryResult.LEFT
    assert state_of(rows, payment_id) == before


@pytest.mark.parametrize("mode", ["error_before", "drop"])
def test_money_on_its_way_is_left_while_the_gateway_is_silent(
    stripe_app: StripeApp, rows: Rows, age: Age, mode: Any
) -> None:
    payment_id, reference = processing_payment(stripe_app)
    age(payment_id, timedelta(days=30))
    stripe_app.fake.pay(reference)
    stripe_app.fake.misbehave(mode, method="GET", path=INTENTS, times=None)

    assert resume_processing(stripe_app.app, payment_id) == ExpiryResult.LEFT
    assert state_of(rows, payment_id)["status"] == "processing"


def test_a_declined_payment_may_be_tried_again_until_its_time_is_up(
    stripe_app: StripeApp, rows: Rows, age: Age
) -> None:
    payment_id, reference = processing_payment(stripe_app)
    stripe_app.fake.decline(reference)

    assert resume_processing(stripe_app.app, payment_id) == ExpiryResult.LEFT
    assert state_of(rows, payment_id)["status"] == "processing"

    age(payment_id, PENDING_TTL + MOMENT)
    assert resume_processing(stripe_app.app, payment_id) == ExpiryResult.FAILED
    assert state_of(rows, payment_id)["status"] == "failed"
    assert trail_of(rows, payment_id) == ["payment.created", "payment.processing", "payment.failed"]
    assert stripe_app.fake.intents[reference]["status"] == "canceled"
    assert session_status(rows, payment_id) == "cancelled"
    assert invoice_status(rows, payment_id) == "void"
    assert stripe_app.people.patient.pay(5).status_code == 201


@pytest.mark.parametrize("consultation_is_free", [True, False])
def test_a_failed_payment_paid_late_completes_or_is_quarantined(
    stripe_app: StripeApp, rows: Rows, age: Age, consultation_is_free: bool
) -> None:
    payment_id, reference = processing_payment(stripe_app)
    stripe_app.fake.decline(reference)
    age(payment_id, PENDING_TTL + MOMENT)
    assert resume_processing(stripe_app.app, payment_id) == ExpiryResult.FAILED
    if not consultation_is_free:
        create(stripe_app.people)
    # A gateway that changes its mind about what it said was cancelled.
    stripe_app.fake.tamper(reference, status="processing")
    stripe_app.fake.pay(reference)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    late = state_of(rows, payment_id)
    assert late["received_minor"] == 500_000
    assert late["needs_review"] == (not consultation_is_free)
    assert late["status"] == ("completed" if consultation_is_free else "failed")


def test_a_payment_that_is_not_processing_is_not_resumed(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    before = state_of(rows, payment_id)
    with stripe_app.app.app_context():
        assert list(resume.find_processing()) == []
        assert resume.resume(payment_id, deadlines(), context()) == ExpiryResult.FOLLOWED
    assert state_of(rows, payment_id) == before


def test_processing_payments_are_found_in_batches(stripe_app: StripeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "BATCH_SIZE", 1)
    payment_ids = [processing_payment(stripe_app, number)[0] for number in (1, 2, 3)]

    with stripe_app.app.app_context():
        assert list(resume.find_processing()) == payment_ids


def test_one_payment_expiring_leaves_others_alone(stripe_app: StripeApp, age: Age, rows: Rows) -> None:
    mine = create(stripe_app.people)
    theirs = stripe_app.people.other.pay(21).json["data"]["payment_id"]
    age(theirs, timedelta(days=1))

    assert overdue(stripe_app.app) == [theirs]
    assert expire_payment(stripe_app.app, theirs) == ExpiryResult.EXPIRED
    assert state_of(rows, mine)["status"] == "pending"
