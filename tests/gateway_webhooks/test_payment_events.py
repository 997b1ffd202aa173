"""What Stripe says of payments, late, twice, out of order and about strangers: each thing happens once, or never."""

import json
import logging
from typing import Any

import pytest
from sqlalchemy.orm import Session

from payments_app.payments import repository
from tests.gateway_webhooks import send, state_of, tell, trail_of
from tests.support.client import client_of
from tests.support.dialects import on_postgresql
from tests.support.fake_stripe_state import Wire
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import at_once, statuses
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card

STORM = 20
# Not more than the app has connections for.
FEW = 6


pytestmark = pytest.mark.usefixtures("audited")


def invoice_status(rows: Rows, payment_id: int) -> str:
    status: str = rows.one("SELECT status FROM invoices WHERE payment_id = :id", id=payment_id)["status"]
    return status


def assert_completed(rows: Rows, payment_id: int, reference: str, version: int = 1) -> None:
    assert state_of(rows, payment_id) == {
        "status": "completed",
        "version": version,
        "transaction_id": reference,
        "received_minor": 500_000,
        "refund_reserved_minor": 0,
        "refunded_minor": 0,
        "needs_review": False,
    }
    assert invoice_status(rows, payment_id) == "paid"


def test_money_on_its_way_makes_the_payment_processing(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.start_processing(reference)

    tell(stripe_app, stripe_app.fake.intent_event("processing", reference))

    assert (state_of(rows, payment_id)["status"], state_of(rows, payment_id)["version"]) == ("processing", 1)
    assert invoice_status(rows, payment_id) == "pending"
    assert trail_of(rows, payment_id) == ["payment.created", "payment.processing"]
    # Other events that say the same bring nothing new.
    tell(stripe_app, stripe_app.fake.intent_event("processing", reference))
    assert state_of(rows, payment_id)["version"] == 1


@pytest.mark.parametrize("is_processing", [False, True])
def test_a_declined_attempt_is_an_event_and_no_end(stripe_app: StripeApp, rows: Rows, is_processing: bool) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    if is_processing:
        stripe_app.fake.start_processing(reference)
        tell(stripe_app, stripe_app.fake.intent_event("processing", reference))
    before = state_of(rows, payment_id)
    stripe_app.fake.decline(reference)

    tell(stripe_app, stripe_app.fake.intent_event("payment_failed", reference))

    assert state_of(rows, payment_id) == before
    assert trail_of(rows, payment_id)[-1] == "payment.attempt_failed"
    # The same session may still succeed.
    stripe_app.fake.pay(reference)
    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))
    assert_completed(rows, payment_id, reference, before["version"] + 1)


def test_money_completes_the_payment(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    assert_completed(rows, payment_id, reference)
    assert rows.one("SELECT status FROM gateway_sessions") == {"status": "succeeded"}
    actor = rows.one("SELECT actor FROM payment_events WHERE to_status = 'completed'")["actor"]
    assert actor == "gateway:stripe"
    assert stripe_app.people.patient.get(f"/payments/{payment_id}").json["data"]["completed_at"] is not None
    # A patient who comes back to confirm it hears that it is done.
    late = stripe_app.people.patient.confirm(payment_id, reference)
    assert (late.status_code, late.headers["Idempotent-Replayed"]) == (200, "true")
    assert_completed(rows, payment_id, reference)


def test_money_that_overtakes_the_row_of_its_session_completes_the_payment(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    rows.execute("DELETE FROM gateway_sessions")
    stripe_app.fake.pay(reference)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    assert_completed(rows, payment_id, reference)
    kept = rows.one("SELECT payment_id, reference, status FROM gateway_sessions")
    assert kept == {"payment_id": payment_id, "reference": reference, "status": "succeeded"}


def test_a_session_that_is_cancelled_cancels_its_payment(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.cancel(reference)

    tell(stripe_app, stripe_app.fake.intent_event("canceled", reference))

    assert (state_of(rows, payment_id)["status"], state_of(rows, payment_id)["version"]) == ("cancelled", 1)
    assert invoice_status(rows, payment_id) == "void"
    assert rows.one("SELECT status FROM gateway_sessions") == {"status": "cancelled"}
    assert stripe_app.people.patient.pay(5).status_code == 201


def test_our_own_cancel_told_back_to_us_changes_nothing(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    assert stripe_app.people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200
    before = state_of(rows, payment_id)

    tell(stripe_app, stripe_app.fake.intent_event("canceled", reference))

    assert state_of(rows, payment_id) == before
    assert trail_of(rows, payment_id) == ["payment.created", "payment.cancelled"]


def test_a_delivery_made_again_has_no_effect(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.decline(reference)
    event = stripe_app.fake.intent_event("payment_failed", reference)

    for _ in range(3):
        tell(stripe_app, event)

    assert rows.count("webhook_events") == 1
    # Every event of this kind is noted, so that a second line would show.
    assert trail_of(rows, payment_id) == ["payment.created", "payment.attempt_failed"]


@pytest.mark.parametrize("kind", ["succeeded", "payment_failed"])
def test_twenty_deliveries_of_one_event_at_once_have_one_effect(stripe_app: StripeApp, rows: Rows, kind: str) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    if kind == "succeeded":
        stripe_app.fake.pay(reference)
    else:
        stripe_app.fake.decline(reference)
    body = json.dumps(stripe_app.fake.intent_event(kind, reference)).encode()
    signature = stripe_app.fake.sign(body)

    answers = at_once([lambda: send(stripe_app.app, body, signature)] * STORM)

    # A lost race may be 503, which the gateway takes for "again, please"; but one has to get through.
    assert set(statuses(answers)) <= {200, 503}
    assert statuses(answers)[200] >= 1
    assert rows.count("webhook_events") == 1
    assert len(trail_of(rows, payment_id)) == 2
    if kind == "succeeded":
        assert_completed(rows, payment_id, reference)


def test_different_events_about_one_payment_at_once_are_all_taken_in_and_complete_it_once(
    stripe_app: StripeApp, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    """Stripe sends what happens together at once, and whatever is refused again an hour later."""
    caplog.set_level(logging.INFO, "payments_app.db.transaction")
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    bodies = [json.dumps(stripe_app.fake.intent_event("succeeded", reference)).encode() for _ in range(FEW)]

    answers = at_once(
        [lambda body=body: send(stripe_app.app, body, stripe_app.fake.sign(body)) for body in bodies]  # type: ignore[misc]
    )

    assert statuses(answers) == {200: FEW}
    assert rows.count("webhook_events") == FEW
    assert_completed(rows, payment_id, reference)
    assert trail_of(rows, payment_id) == ["payment.created", "payment.completed"]
    # PostgreSQL waits a second before it looks for a deadlock: two events must not wait for each other.
    assert "lost a race" not in caplog.text


def test_a_confirm_and_the_event_about_it_at_once_complete_once(stripe_app: StripeApp, rows: Rows) -> None:
    for consultation_id in range(1, 6):
        payment_id, reference = open_by_card(stripe_app.people, consultation_id)
        stripe_app.fake.pay(reference)
        body = json.dumps(stripe_app.fake.intent_event("succeeded", reference)).encode()
        patient = stripe_app.people.seen_by(stripe_app.app).patient

        answers = at_once(
            [
                lambda p=patient, i=payment_id, r=reference: p.confirm(i, r),  # type: ignore[misc]
                lambda body=body: send(stripe_app.app, body, stripe_app.fake.sign(body)),  # type: ignore[misc]
            ]
        )

        assert statuses(answers) == {200: 2}
        assert_completed(rows, payment_id, reference)
        assert trail_of(rows, payment_id) == ["payment.created", "payment.completed"]


# SQLite has one lock for all writers: nothing comes in between.
@on_postgresql
@pytest.mark.parametrize("kind", ["processing", "payment_failed", "canceled"])
def test_news_that_wait_for_the_row_are_judged_by_what_it_has_become(
    stripe_app: StripeApp, rows: Rows, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The payment is read before its row is locked, and another event completes it in between."""
    payment_id, reference = open_by_card(stripe_app.people, 5)
    late = stripe_app.fake.intent_event(kind, reference)
    stripe_app.fake.pay(reference)
    money = [stripe_app.fake.intent_event("succeeded", reference)]

    lock_payment = repository.lock_payment

    def complete_first(session: Session, payment_id: int) -> int | None:
        if money:
            tell(stripe_app, money.pop())
        return lock_payment(session, payment_id)

    monkeypatch.setattr(repository, "lock_payment", complete_first)
    tell(stripe_app, late)

    assert not money
    assert_completed(rows, payment_id, reference)
    assert trail_of(rows, payment_id) == ["payment.created", "payment.completed"]


# Late, and out of order


@pytest.mark.parametrize("kind", ["processing", "payment_failed", "canceled"])
def test_late_news_move_no_paid_payment_back(stripe_app: StripeApp, rows: Rows, kind: str) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    {
        "processing": stripe_app.fake.start_processing,
        "payment_failed": stripe_app.fake.decline,
        "canceled": stripe_app.fake.cancel,
    }[kind](reference)
    late = stripe_app.fake.intent_event(kind, reference)
    stripe_app.fake.tamper(reference, status="processing")
    stripe_app.fake.pay(reference)
    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    tell(stripe_app, late)

    assert_completed(rows, payment_id, reference)
    assert trail_of(rows, payment_id) == ["payment.created", "payment.completed"]
    assert rows.one("SELECT status FROM gateway_sessions") == {"status": "succeeded"}
    assert rows.count("webhook_events") == 2


@pytest.mark.parametrize("kind", ["processing", "payment_failed"])
def test_late_news_revive_no_cancelled_payment(stripe_app: StripeApp, rows: Rows, kind: str) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    late = stripe_app.fake.intent_event(kind, reference)
    late["data"]["object"]["status"] = "processing" if kind == "processing" else "requires_payment_method"
    stripe_app.people.patient.post(f"/payments/{payment_id}/cancel")
    before = state_of(rows, payment_id)

    tell(stripe_app, late)

    assert state_of(rows, payment_id) == before
    assert trail_of(rows, payment_id) == ["payment.created", "payment.cancelled"]
    assert rows.one("SELECT status FROM gateway_sessions") == {"status": "cancelled"}


def test_late_news_of_the_money_move_no_refunded_payment_back(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    (reference,) = stripe_app.fake.intents
    assert stripe_app.people.admin.post(f"/payments/{payment_id}/refund").status_code == 200
    before = state_of(rows, payment_id)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))
    tell(stripe_app, {**stripe_app.fake.intent_event("processing", reference)})

    assert before["status"] == "refunded"
    assert state_of(rows, payment_id) == before


# What is none of our business, or not all there


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("customer.created", {"id": "cus_1", "object": "customer"}),
        ("balance.available", {"object": "balance", "available": []}),
        ("payment_intent.created", {"id": "pi_1", "object": "payment_intent"}),
        ("invented.tomorrow", {}),
    ],
)
def test_an_event_of_a_kind_that_we_do_not_follow_is_kept(
    stripe_app: StripeApp, rows: Rows, kind: str, thing: Wire
) -> None:
    tell(stripe_app, stripe_app.fake.event(kind, thing, event_id="evt_1"))

    kept = rows.one("SELECT event_id, type, payment_id FROM webhook_events")
    assert kept == {"event_id": "evt_1", "type": kind, "payment_id": None}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        None,
        {"order": "77"},
        {"payment_id": "999999999", "consultation_id": "5"},
        {"payment_id": "OURS", "consultation_id": "6"},
        {"payment_id": "OURS"},
        {"payment_id": "OURS ", "consultation_id": "5"},
        {"payment_id": "9" * 400, "consultation_id": "5"},
        {"payment_id": "9223372036854775808", "consultation_id": "5"},
        {"payment_id": "OURS'; --", "consultation_id": "5"},
    ],
    ids=str,
)
def test_events_about_an_intent_of_others_are_kept_and_have_no_effect(
    stripe_app: StripeApp, rows: Rows, metadata: dict[str, str] | None
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    before = state_of(rows, payment_id)
    named = metadata and {name: text.replace("OURS", str(payment_id)) for name, text in metadata.items()}
    kinds = {"succeeded": "succeeded", "processing": "processing", "payment_failed": "requires_payment_method"}
    for kind, status in {**kinds, "canceled": "canceled"}.items():
        event = stripe_app.fake.intent_event(kind, reference)
        event["data"]["object"].update(id="pi_of_others", status=status, metadata=named)

        tell(stripe_app, event)

    assert state_of(rows, payment_id) == before
    assert trail_of(rows, payment_id) == ["payment.created"]
    assert rows.count("webhook_events", "reference = 'pi_of_others' AND payment_id IS NULL") == 4
    assert rows.count("gateway_sessions") == 1


@pytest.mark.parametrize("method", ["stripe", "bank_transfer"])
def test_an_event_that_names_the_id_of_another_gateways_payment_has_no_effect(
    stripe_app: StripeApp, people: People, rows: Rows, method: str
) -> None:
    # In the app without Stripe a card is the sandbox's.
    payment_id = people.patient.pay(6, payment_method=method).json["data"]["payment_id"]
    _, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    before = state_of(rows, payment_id)
    event = stripe_app.fake.intent_event("succeeded", reference)
    named = {"payment_id": str(payment_id), "consultation_id": "6"}
    event["data"]["object"].update(id="pi_elsewhere", metadata=named)

    tell(stripe_app, event)

    assert state_of(rows, payment_id) == before
    assert rows.one("SELECT payment_id FROM webhook_events") == {"payment_id": None}


@pytest.mark.parametrize(
    ("wrong", "received_minor", "event"),
    [
        ({"amount": 400_000, "amount_received": 400_000}, 400_000, "payment.quarantined"),
        ({"metadata": {}}, 500_000, "payment.quarantined"),
        # What cannot be counted in our currency is not counted, but seen.
        ({"currency": "usd"}, 0, "payment.paid_in_other_currency"),
    ],
    ids=str,
)
def test_money_that_does_not_fit_the_bill_is_for_staff_to_see(
    stripe_app: StripeApp, rows: Rows, wrong: dict[str, Any], received_minor: int, event: str
) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    stripe_app.fake.tamper(reference, **wrong)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    kept = state_of(rows, payment_id)
    assert (kept["status"], kept["received_minor"], kept["needs_review"]) == ("pending", received_minor, True)
    assert trail_of(rows, payment_id)[-1] == event
    assert invoice_status(rows, payment_id) == "pending"


def test_a_webhook_is_no_way_around_the_media_types_of_others(stripe_app: StripeApp, rows: Rows) -> None:
    """It is the signed bytes that count, whatever they are called."""
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    body = json.dumps(stripe_app.fake.intent_event("succeeded", reference)).encode()

    answer = client_of(stripe_app.app).post(
        "/api/v1/webhooks/stripe", data=body, headers={"Stripe-Signature": stripe_app.fake.sign(body)}
    )

    assert answer.status_code == 200
    assert_completed(rows, payment_id, reference)
