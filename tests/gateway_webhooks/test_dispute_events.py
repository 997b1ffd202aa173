"""What Stripe says of disputes: refunds are blocked while one is open or lost, and nothing moves back."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from payments_app.errors import PaymentDisputed
from tests.gateway_webhooks import send, state_of, tell, trail_of
from tests.support.fake_stripe_state import Wire
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card, refund, resume_refunds

ALL_MINOR = 500_000

pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def payment_id(stripe_app: StripeApp) -> int:
    """A payment of 5,000 that is paid and confirmed."""
    return pay_by_card(stripe_app.people, stripe_app.fake, 5)


@pytest.fixture
def intent(stripe_app: StripeApp, payment_id: int) -> str:  # noqa: ARG001  # it is the payment's
    (reference,) = stripe_app.fake.intents
    return reference


def dispute(stripe_app: StripeApp, intent: str, amount: int | None = None, *, status: str = "needs_response") -> str:
    """Stripe tells of a new dispute; its id there."""
    dispute_id = stripe_app.fake.dispute(intent, amount, status=status)
    tell(stripe_app, stripe_app.fake.dispute_event("created", dispute_id))
    return dispute_id


def move(stripe_app: StripeApp, dispute_id: str, status: str, kind: str = "updated") -> None:
    stripe_app.fake.move_dispute(dispute_id, status)
    tell(stripe_app, stripe_app.fake.dispute_event(kind, dispute_id))


def flags(rows: Rows, payment_id: int) -> tuple[bool, bool]:
    """Whether refunds are blocked, and whether staff have to look."""
    kept = rows.one("SELECT is_disputed, needs_review FROM payments WHERE id = :id", id=payment_id)
    return bool(kept["is_disputed"]), bool(kept["needs_review"])


def statuses(rows: Rows) -> list[str]:
    return [row["status"] for row in rows.all("SELECT status FROM disputes ORDER BY id")]


def ask_refund(stripe_app: StripeApp, payment_id: int, amount: int | None = None) -> tuple[int, str]:
    members: dict[str, Any] = {} if amount is None else {"amount": amount}
    answer = refund(stripe_app.people.admin, payment_id, **members)
    return answer.status_code, answer.json.get("type", "").rpartition("/")[2]


BLOCKED = (409, "payment-disputed")
MADE = (200, "")


# One dispute


def test_a_dispute_blocks_refunds_and_is_for_staff_to_see(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    version = state_of(rows, payment_id)["version"]

    dispute_id = dispute(stripe_app, intent)

    assert flags(rows, payment_id) == (True, True)
    assert state_of(rows, payment_id)["version"] == version + 1
    assert trail_of(rows, payment_id)[-2:] == ["dispute.needs_response", "refunds.blocked"]
    assert ask_refund(stripe_app, payment_id) == BLOCKED
    assert ask_refund(stripe_app, payment_id, 1000) == BLOCKED
    assert (stripe_app.fake.refunds, rows.count("refunds")) == ({}, 0)
    (listed,) = stripe_app.people.admin.get("/disputes").json["data"]
    due_by = stripe_app.fake.disputes[dispute_id]["evidence_details"]["due_by"]
    assert {name: listed[name] for name in ("payment_id", "gateway", "reference", "amount", "status", "reason")} == {
        "payment_id": payment_id,
        "gateway": "stripe",
        "reference": dispute_id,
        "amount": 5000,
        "status": "needs_response",
        "reason": "fraudulent",
    }
    assert listed["due_at"] == f"{datetime.fromtimestamp(due_by, UTC):%Y-%m-%dT%H:%M:%S}.000000Z"


def test_a_won_dispute_gives_refunds_free_and_ends_the_review_that_it_began(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    dispute_id = dispute(stripe_app, intent)
    move(stripe_app, dispute_id, "under_review")
    assert ask_refund(stripe_app, payment_id) == BLOCKED

    move(stripe_app, dispute_id, "won", "closed")
    tell(stripe_app, stripe_app.fake.dispute_event("funds_reinstated", dispute_id))

    assert flags(rows, payment_id) == (False, False)
    assert trail_of(rows, payment_id)[-2:] == ["dispute.won", "refunds.released"]
    assert ask_refund(stripe_app, payment_id) == MADE
    assert stripe_app.fake.refunded_total(intent) == ALL_MINOR


def test_a_lost_dispute_blocks_refunds_for_good_and_only_staff_end_its_review(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    move(stripe_app, dispute(stripe_app, intent), "lost", "closed")

    assert flags(rows, payment_id) == (True, True)
    money = state_of(rows, payment_id)
    assert (money["status"], money["received_minor"], money["refunded_minor"]) == ("completed", ALL_MINOR, 0)
    audited = stripe_app.app.test_cli_runner().invoke(args=["payments", "audit"])
    assert audited.stdout.splitlines()[0].endswith("refund to make: none, because it is disputed")
    command = stripe_app.app.test_cli_runner().invoke(args=["payments", "resolve-review", str(payment_id), "--yes"])
    assert command.exit_code == 0, command.output
    assert flags(rows, payment_id) == (True, False)
    assert ask_refund(stripe_app, payment_id) == BLOCKED


def test_an_inquiry_blocks_nothing_is_shown_and_ends_by_itself(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    dispute_id = dispute(stripe_app, intent, status="warning_needs_response")

    assert flags(rows, payment_id) == (False, True)
    assert ask_refund(stripe_app, payment_id, 1000) == MADE
    assert flags(rows, payment_id) == (False, True)
    move(stripe_app, dispute_id, "warning_closed", "closed")
    assert flags(rows, payment_id) == (False, False)
    assert trail_of(rows, payment_id)[-1] == "dispute.inquiry_closed"


def test_an_inquiry_may_become_a_dispute(stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows) -> None:
    dispute_id = dispute(stripe_app, intent, status="warning_needs_response")
    move(stripe_app, dispute_id, "warning_closed", "closed")

    move(stripe_app, dispute_id, "needs_response", "funds_withdrawn")

    assert flags(rows, payment_id) == (True, True)
    assert ask_refund(stripe_app, payment_id) == BLOCKED


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("prevented", "lost"),
        ("charge_refunded", "lost"),
        ("a_word_of_next_year", "needs_response"),
        ("warning_of_next_year", "inquiry"),
    ],
)
@pytest.mark.usefixtures("payment_id")
def test_a_status_that_is_not_known_blocks_refunds_unless_it_is_an_inquirys(
    stripe_app: StripeApp, intent: str, rows: Rows, word: str, kept: str
) -> None:
    dispute(stripe_app, intent, status=word)

    assert statuses(rows) == [kept]


def test_a_new_day_to_answer_by_is_taken_over_and_an_older_one_is_not(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    fake, dispute_id = stripe_app.fake, dispute(stripe_app, intent)
    created = int(datetime.now(UTC).timestamp())
    for seconds, due_by in ((20, 1_900_000_000), (10, 1_800_000_000)):
        fake.move_dispute(dispute_id, "needs_response", evidence_details={"due_by": due_by})
        tell(stripe_app, fake.dispute_event("updated", dispute_id, created=created + seconds))

    assert stripe_app.people.admin.get("/disputes").json["data"][0]["due_at"] == "2030-03-17T17:46:40.000000Z"
    assert trail_of(rows, payment_id).count("dispute.updated") == 1


# In whatever order, and more than one


@pytest.mark.parametrize("end", ["won", "lost"])
def test_events_in_any_order_end_where_the_dispute_ends(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows, end: str
) -> None:
    fake = stripe_app.fake
    for order in itertools.permutations(range(3)):
        dispute_id = fake.dispute(intent, status="warning_needs_response")
        events = []
        for status in ("needs_response", "under_review", end):
            fake.move_dispute(dispute_id, status)
            events.append(fake.dispute_event("updated", dispute_id))
        for number in (*order, *order):
            tell(stripe_app, events[number])

    assert statuses(rows) == [end] * 6
    assert flags(rows, payment_id) == ((False, False) if end == "won" else (True, True))


def test_won_after_lost_is_for_staff_and_blocks_refunds_until_then(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    """Which of the two came first, no event says."""
    dispute_id = dispute(stripe_app, intent)
    move(stripe_app, dispute_id, "won", "closed")
    move(stripe_app, dispute_id, "lost", "closed")
    assert flags(rows, payment_id) == (True, True)

    move(stripe_app, dispute_id, "won", "closed")

    assert statuses(rows) == ["lost"]
    assert flags(rows, payment_id) == (True, True)
    assert trail_of(rows, payment_id)[-1] == "dispute.won_after_lost"


def test_of_several_disputes_each_holds_the_payment(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    first, second = (dispute(stripe_app, intent, 100_000) for _ in range(2))
    inquiry = dispute(stripe_app, intent, 1, status="warning_needs_response")

    move(stripe_app, first, "won", "closed")
    assert flags(rows, payment_id) == (True, True)
    move(stripe_app, second, "won", "closed")
    assert flags(rows, payment_id) == (False, True)
    move(stripe_app, inquiry, "warning_closed", "closed")
    assert flags(rows, payment_id) == (False, False)
    assert trail_of(rows, payment_id).count("refunds.blocked") == 1


def test_a_won_dispute_leaves_a_review_that_has_another_reason(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    """A refund that had succeeded came back, before or during the dispute."""
    fake = stripe_app.fake
    for amount in (1000, 500):
        assert ask_refund(stripe_app, payment_id, amount) == MADE
    first, second = fake.refunds_of(intent)
    fake.settle_refund(first["id"], "failed")
    tell(stripe_app, fake.refund_event("failed", first["id"]))
    dispute_id = dispute(stripe_app, intent, 1000)
    move(stripe_app, dispute_id, "won", "closed")
    assert flags(rows, payment_id) == (False, True)
    stripe_app.app.test_cli_runner().invoke(args=["payments", "resolve-review", str(payment_id), "--yes"])
    assert flags(rows, payment_id) == (False, False)

    dispute_id = dispute(stripe_app, intent, 1000)
    fake.settle_refund(second["id"], "failed")
    tell(stripe_app, fake.refund_event("failed", second["id"]))
    move(stripe_app, dispute_id, "won", "closed")

    assert flags(rows, payment_id) == (False, True)


def test_money_that_came_too_late_waits_for_the_end_of_its_dispute(stripe_app: StripeApp, rows: Rows) -> None:
    fake = stripe_app.fake
    created = stripe_app.people.patient.pay(5)
    payment_id: int = created.json["data"]["payment_id"]
    fake.misbehave("drop", path="/v1/", times=None)
    stripe_app.people.patient.post(f"/payments/{payment_id}/checkout")
    fake.behave()
    rows.execute("UPDATE payments SET status = 'cancelled'")
    rows.execute("UPDATE invoices SET status = 'void'")
    event = rows.one("SELECT max(id) AS id FROM payment_events")["id"]
    rows.execute("UPDATE payment_events SET to_status = 'cancelled' WHERE id = :id", id=event)
    (intent,) = fake.intents
    fake.pay(intent)
    tell(stripe_app, fake.intent_event("succeeded", intent))
    assert flags(rows, payment_id) == (False, True)
    dispute_id = dispute(stripe_app, intent)
    assert ask_refund(stripe_app, payment_id) == BLOCKED
    # While nothing can be refunded, staff may end the review; afterwards the money still has to go back.
    stripe_app.app.test_cli_runner().invoke(args=["payments", "resolve-review", str(payment_id), "--yes"])
    assert flags(rows, payment_id) == (True, False)

    move(stripe_app, dispute_id, "won", "closed")

    assert flags(rows, payment_id) == (False, True)
    assert ask_refund(stripe_app, payment_id) == MADE
    assert flags(rows, payment_id) == (False, False)


# Beside refunds


def test_a_dispute_of_money_that_went_back_is_for_staff_even_if_it_is_won(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    assert ask_refund(stripe_app, payment_id, 3000) == MADE

    dispute_id = dispute(stripe_app, intent)
    move(stripe_app, dispute_id, "won", "closed")

    assert "dispute.meets_refund" in trail_of(rows, payment_id)
    assert flags(rows, payment_id) == (False, True)


def test_a_dispute_of_what_was_not_refunded_ends_by_itself(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    assert ask_refund(stripe_app, payment_id, 3000) == MADE

    move(stripe_app, dispute(stripe_app, intent, 200_000), "won", "closed")

    assert flags(rows, payment_id) == (False, False)


def test_a_refund_that_was_not_sent_is_held_while_the_payment_is_disputed(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    fake = stripe_app.fake
    fake.misbehave("error_before", should_retry=False)
    assert refund(stripe_app.people.admin, payment_id, key="one").status_code == 202
    dispute_id = dispute(stripe_app, intent)
    rows.execute("UPDATE refunds SET leased_until = created_at")

    with pytest.raises(PaymentDisputed):
        resume_refunds(stripe_app.app)

    assert fake.refunds == {}
    assert rows.one("SELECT status FROM refunds") == {"status": "unknown"}
    printed = stripe_app.app.test_cli_runner().invoke(args=["refunds", "resume"])
    assert "stays open: The patient's bank disputes this payment" in printed.stderr
    assert refund(stripe_app.people.admin, payment_id, key="one").status_code == 202  # what it was, is still told
    move(stripe_app, dispute_id, "won", "closed")
    (resumed,) = resume_refunds(stripe_app.app)
    assert resumed is not None
    assert (resumed.status, fake.refunded_total(intent)) == ("succeeded", ALL_MINOR)


def test_staff_do_not_send_a_refund_again_while_the_payment_is_disputed(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    stripe_app.fake.misbehave("error_before", should_retry=False)
    assert refund(stripe_app.people.admin, payment_id).status_code == 202
    dispute(stripe_app, intent)
    long_ago = rows.moment(datetime(2026, 1, 1, tzinfo=UTC))
    rows.execute("UPDATE refunds SET leased_until = :at, created_at = :at", at=long_ago)
    refund_id = rows.one("SELECT id FROM refunds")["id"]

    again = stripe_app.app.test_cli_runner().invoke(args=["refunds", "resume", "--send-again", str(refund_id), "--yes"])

    assert again.exit_code != 0
    assert "disputes this payment" in again.stderr
    assert stripe_app.fake.refunds == {}
    given_up = stripe_app.app.test_cli_runner().invoke(args=["refunds", "give-up", str(refund_id), "--yes"])
    assert given_up.exit_code == 0, given_up.output
    assert rows.one("SELECT status FROM refunds") == {"status": "failed"}


def test_a_refund_that_was_sent_before_the_dispute_is_written_down_and_for_staff(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    stripe_app.fake.misbehave("drop")
    assert refund(stripe_app.people.admin, payment_id).status_code == 202
    dispute(stripe_app, intent)
    rows.execute("UPDATE refunds SET leased_until = created_at")

    (resumed,) = resume_refunds(stripe_app.app)

    assert resumed is not None
    assert resumed.status == "succeeded"
    assert "dispute.meets_refund" in trail_of(rows, payment_id)
    assert flags(rows, payment_id) == (True, True)


def test_a_refund_made_in_the_dashboard_during_a_dispute_is_counted_and_for_staff(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    dispute_id = dispute(stripe_app, intent)
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))

    assert state_of(rows, payment_id)["refunded_minor"] == 200_000
    assert trail_of(rows, payment_id)[-1] == "refund.despite_dispute"
    move(stripe_app, dispute_id, "won", "closed")
    assert flags(rows, payment_id) == (False, True)


# Money that is not known, or not yet


def test_a_dispute_that_overtakes_the_news_of_its_money_is_found_by_what_we_wrote_on_it(
    stripe_app: StripeApp, rows: Rows
) -> None:
    """A test card of Stripe's is disputed in the moment in which it pays."""
    payment_id, intent = open_by_card(stripe_app.people, 5)
    rows.execute("DELETE FROM gateway_sessions")
    stripe_app.fake.pay(intent)
    dispute(stripe_app, intent)
    assert flags(rows, payment_id) == (True, True)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", intent))

    assert state_of(rows, payment_id)["status"] == "completed"
    assert ask_refund(stripe_app, payment_id) == BLOCKED


def test_while_stripe_does_not_say_whose_money_it_is_the_event_is_sent_again(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    dispute_id = stripe_app.fake.dispute(intent)
    event = stripe_app.fake.dispute_event("created", dispute_id)
    body = json.dumps(event).encode()
    stripe_app.fake.misbehave("error_before", method="GET", path="/v1/payment_intents", should_retry=False)

    assert send(stripe_app.app, body, stripe_app.fake.sign(body)).status_code == 503

    assert (rows.count("disputes"), rows.count("webhook_events", "type LIKE 'charge.dispute%'")) == (0, 0)
    tell(stripe_app, event)
    assert flags(rows, payment_id) == (True, True)


@pytest.mark.parametrize("named", ["pi_of_another_shop", None], ids=str)
def test_a_dispute_of_unknown_money_is_kept_and_told(
    stripe_app: StripeApp,
    payment_id: int,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
    named: str | None,
) -> None:
    (intent,) = stripe_app.fake.intents
    dispute_id = stripe_app.fake.dispute(intent)
    stripe_app.fake.disputes[dispute_id]["payment_intent"] = named
    event = stripe_app.fake.dispute_event("created", dispute_id)

    tell(stripe_app, event)

    kept = rows.one("SELECT reference, payment_id FROM webhook_events WHERE event_id = :id", id=event["id"])
    assert kept == {"reference": dispute_id, "payment_id": None}
    assert (flags(rows, payment_id), rows.count("disputes")) == ((False, False), 0)
    assert any("a dispute of unknown money" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "changes",
    [{"amount": 0}, {"amount": "5"}, {"currency": "p\u00e9so"}, {"currency": "PESO"}, {"status": None}, {"id": 7}],
    ids=str,
)
def test_a_dispute_that_cannot_be_read_is_kept_and_told(
    stripe_app: StripeApp,
    payment_id: int,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
    changes: Wire,
) -> None:
    (intent,) = stripe_app.fake.intents
    dispute_id = stripe_app.fake.dispute(intent)
    wire: dict[str, Any] = {**stripe_app.fake.disputes[dispute_id], **changes}

    tell(stripe_app, stripe_app.fake.event("charge.dispute.created", wire))

    assert (flags(rows, payment_id), rows.count("disputes")) == ((False, False), 0)
    assert any("Webhook: unreadable" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": None},
        {"reason": "x" * 200},
        {"evidence_details": None},
        {"evidence_details": {"due_by": None}},
        {"evidence_details": {"due_by": "soon"}},
        {"evidence_details": {"due_by": 1e300}},
        {"currency": "usd"},
        {"amount": 2**63 - 1},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_dispute_counts_in_whatever_else_it_says(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows, changes: Wire
) -> None:
    dispute_id = stripe_app.fake.dispute(intent)
    stripe_app.fake.disputes[dispute_id].update(changes)

    tell(stripe_app, stripe_app.fake.dispute_event("created", dispute_id))

    assert flags(rows, payment_id) == (True, True)
    assert stripe_app.people.admin.get("/disputes").status_code == 200


@pytest.mark.parametrize(
    ("event_type", "is_logged"),
    [
        ("charge.dispute.of_next_year", True),
        ("charge.captured", True),
        ("payment_intent.amount_capturable_updated", True),
        ("radar.early_fraud_warning.created", True),
        ("review.opened", True),
        ("v1.review.opened", True),
        ("charge.succeeded", False),
        ("payment_intent.created", False),
        ("payout.failed", False),
        ("customer.created", False),
    ],
)
def test_an_event_that_money_hangs_on_and_that_is_not_followed_is_kept_and_told(
    stripe_app: StripeApp, rows: Rows, caplog: pytest.LogCaptureFixture, event_type: str, *, is_logged: bool
) -> None:
    tell(stripe_app, stripe_app.fake.event(event_type, {"id": "of_1"}))

    assert rows.one("SELECT type, reference FROM webhook_events") == {"type": event_type, "reference": "of_1"}
    warnings = [record for record in caplog.records if "about money and not followed" in record.getMessage()]
    assert len(warnings) == is_logged
