"""What Stripe says of refunds, ours and those made in its dashboard: each counts once, whatever tells of it when."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from payments_app import clock
from payments_app.payments.models.event import AuditContext
from payments_app.refunds import service
from tests.gateway_webhooks import state_of, tell, trail_of
from tests.support.dialects import long_on_sqlite
from tests.support.fake_stripe_state import Wire
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card

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


def refund(stripe_app: StripeApp, payment_id: int, amount: int | None = None) -> int:
    """Ask for a refund; the status of the answer."""
    body = {} if amount is None else {"amount": amount}
    return stripe_app.people.admin.post(f"/payments/{payment_id}/refund", body).status_code


def shown(stripe_app: StripeApp, payment_id: int) -> dict[str, Any]:
    data: dict[str, Any] = stripe_app.people.admin.get(f"/payments/{payment_id}").json["data"]
    return data


def shown_refunds(stripe_app: StripeApp, payment_id: int) -> list[tuple[float, str]]:
    """Amounts in major units, and statuses."""
    return sorted((each["amount"], each["status"]) for each in shown(stripe_app, payment_id)["refunds"])


def invoice_status(rows: Rows, payment_id: int) -> str:
    status: str = rows.one("SELECT status FROM invoices WHERE payment_id = :id", id=payment_id)["status"]
    return status


def assert_money(
    rows: Rows, payment_id: int, status: str, *, refunded: int = 0, reserved: int = 0, needs_review: bool = False
) -> None:
    kept = state_of(rows, payment_id)
    assert (kept["status"], kept["refunded_minor"], kept["refund_reserved_minor"], kept["needs_review"]) == (
        status,
        refunded,
        reserved,
        needs_review,
    )


def resume_all(stripe_app: StripeApp) -> None:
    """As ``flask payments resume`` does."""
    with stripe_app.app.app_context():
        for refund_id in list(service.find_open(clock.now())):
            service.resume(refund_id, lease_seconds=2, context=AuditContext("command:resume", None, clock.now()))


# Refunds of ours


def test_a_refund_whose_answer_was_lost_is_settled_by_an_event(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    stripe_app.fake.misbehave("drop")
    assert refund(stripe_app, payment_id) == 202
    assert_money(rows, payment_id, "completed", reserved=ALL_MINOR)
    (made,) = stripe_app.fake.refunds_of(intent)

    for kind in ("created", "updated", "updated"):
        tell(stripe_app, stripe_app.fake.refund_event(kind, made["id"]))

    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert shown_refunds(stripe_app, payment_id) == [(5000, "succeeded")]
    assert rows.one("SELECT reference, made_elsewhere FROM refunds") == {
        "reference": made["id"],
        "made_elsewhere": False,
    }
    assert invoice_status(rows, payment_id) == "refunded"
    assert trail_of(rows, payment_id).count("refund.succeeded") == 1


def test_a_refund_on_its_way_is_settled_by_an_event(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    stripe_app.fake.refunds_start_as = "pending"
    assert refund(stripe_app, payment_id, 2000) == 202
    (made,) = stripe_app.fake.refunds_of(intent)
    started = stripe_app.fake.refund_event("created", made["id"])
    stripe_app.fake.settle_refund(made["id"], "succeeded")

    tell(stripe_app, stripe_app.fake.refund_event("updated", made["id"]))
    tell(stripe_app, started)  # late: what it says is not so any more

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert shown_refunds(stripe_app, payment_id) == [(2000, "succeeded")]


@pytest.mark.parametrize("kind", ["refund.failed", "refund.updated", "charge.refund.updated"])
def test_a_refund_on_its_way_that_fails_frees_its_money(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows, kind: str
) -> None:
    stripe_app.fake.refunds_start_as = "pending"
    assert refund(stripe_app, payment_id, 2000) == 202
    assert_money(rows, payment_id, "completed", reserved=200_000)
    (made,) = stripe_app.fake.refunds_of(intent)
    stripe_app.fake.settle_refund(made["id"], "failed")

    for _ in range(2):
        tell(stripe_app, stripe_app.fake.event(kind, stripe_app.fake.refunds[made["id"]]))

    assert_money(rows, payment_id, "completed")
    assert shown_refunds(stripe_app, payment_id) == [(2000, "failed")]
    assert trail_of(rows, payment_id).count("refund.failed") == 1
    stripe_app.fake.refunds_start_as = "succeeded"
    assert refund(stripe_app, payment_id) == 200
    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)


@pytest.mark.parametrize("after", [(2000, "partially_refunded"), (5000, "refunded")], ids=str)
def test_a_refund_that_succeeded_and_then_failed_is_for_staff_to_see(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows, after: tuple[int, str]
) -> None:
    amount, status = after
    assert refund(stripe_app, payment_id, amount) == 200
    (made,) = stripe_app.fake.refunds_of(intent)
    assert_money(rows, payment_id, status, refunded=amount * 100)
    stripe_app.fake.settle_refund(made["id"], "failed")

    for _ in range(2):
        tell(stripe_app, stripe_app.fake.refund_event("failed", made["id"]))

    assert_money(rows, payment_id, status, needs_review=True)
    assert shown_refunds(stripe_app, payment_id) == [(amount, "failed")]
    assert shown(stripe_app, payment_id)["refunded_amount"] == 0
    # Sent once more it is even, and nobody has to look any more.
    assert refund(stripe_app, payment_id) == 200
    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert stripe_app.fake.refunded_total(intent) == ALL_MINOR


def test_older_news_of_a_refund_that_resume_has_found_failed_changes_nothing(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    """Its answer was lost, so that nothing but the look-up has told us Stripe's name for it."""
    stripe_app.fake.misbehave("drop")
    assert refund(stripe_app, payment_id, 2000) == 202
    (made,) = stripe_app.fake.refunds_of(intent)
    older = [stripe_app.fake.refund_event("created", made["id"]), stripe_app.fake.charge_refunded(intent)]
    stripe_app.fake.settle_refund(made["id"], "failed")
    resume_all(stripe_app)
    assert_money(rows, payment_id, "completed")
    version = state_of(rows, payment_id)["version"]

    for event in reversed(older):
        tell(stripe_app, event)

    assert_money(rows, payment_id, "completed")
    assert state_of(rows, payment_id)["version"] == version
    assert shown_refunds(stripe_app, payment_id) == [(2000, "failed")]
    assert rows.one("SELECT reference FROM refunds") == {"reference": made["id"]}


def test_the_total_of_a_refund_of_ours_is_not_counted_again(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    assert refund(stripe_app, payment_id, 2000) == 200

    tell(stripe_app, stripe_app.fake.charge_refunded(intent))
    tell(stripe_app, stripe_app.fake.charge_refunded(intent, with_refunds=True))

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert shown_refunds(stripe_app, payment_id) == [(2000, "succeeded")]


# Refunds made in the dashboard


def events_of(stripe_app: StripeApp, intent: str, made: Wire) -> dict[str, Wire]:
    """All the ways in which Stripe tells of one refund."""
    return {
        "created": stripe_app.fake.refund_event("created", made["id"]),
        "total": stripe_app.fake.charge_refunded(intent),
        "list": stripe_app.fake.charge_refunded(intent, with_refunds=True),
    }


WAYS_TO_HEAR = [order for length in (1, 2, 3) for order in itertools.permutations(("created", "total", "list"), length)]


@pytest.mark.parametrize("heard", WAYS_TO_HEAR, ids="-".join)
def test_a_refund_made_in_the_dashboard_counts_once(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows, heard: Sequence[str]
) -> None:
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    events = events_of(stripe_app, intent, made)

    for kind in heard:
        tell(stripe_app, events[kind])

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert shown_refunds(stripe_app, payment_id) == [(2000, "succeeded")]
    assert shown(stripe_app, payment_id)["refunded_amount"] == 2000
    reference = None if heard == ("total",) else made["id"]
    assert rows.one("SELECT reference, made_elsewhere FROM refunds") == {"reference": reference, "made_elsewhere": True}
    # In other events, and once more in all of them: nothing new.
    version = state_of(rows, payment_id)["version"]
    for again in events_of(stripe_app, intent, made).values():
        tell(stripe_app, again)
    assert state_of(rows, payment_id)["version"] == version
    assert shown_refunds(stripe_app, payment_id) == [(2000, "succeeded")]


def test_a_dashboard_refund_of_all_ends_the_payment(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    made = stripe_app.fake.refund_in_dashboard(intent, ALL_MINOR)

    tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))

    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert invoice_status(rows, payment_id) == "refunded"
    assert refund(stripe_app, payment_id) == 409
    assert stripe_app.people.patient.pay(5).status_code == 201


def test_a_dashboard_refund_leaves_less_to_refund(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))

    assert refund(stripe_app, payment_id, 4000) == 422
    assert refund(stripe_app, payment_id) == 200

    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert shown_refunds(stripe_app, payment_id) == [(2000, "succeeded"), (3000, "succeeded")]
    assert stripe_app.fake.refunded_total(intent) == ALL_MINOR


TWO_REFUNDS = ("total of one", "total of both", "first", "second")


# On SQLite in the long form: the orders are judged by the same code, and cost as much again.
@long_on_sqlite
@pytest.mark.parametrize(
    "amounts",
    [(300_000, 200_000), pytest.param((100_000, 300_000), marks=pytest.mark.long), (200_000, 200_000)],
    ids=str,
)
def test_two_dashboard_refunds_count_once_each_whatever_is_heard_first(
    stripe_app: StripeApp, rows: Rows, amounts: tuple[int, int]
) -> None:
    """All 24 orders of four events, each on a payment of its own; those that go wrong are named together."""
    stripe_app.people.add_consultations("patient", 101, 124)
    wrong = {}
    for number, order in enumerate(itertools.permutations(TWO_REFUNDS)):
        payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 101 + number)
        intent = state_of(rows, payment_id)["transaction_id"]
        first = stripe_app.fake.refund_in_dashboard(intent, amounts[0])
        events = {
            "first": stripe_app.fake.refund_event("created", first["id"]),
            "total of one": stripe_app.fake.charge_refunded(intent),
        }
        second = stripe_app.fake.refund_in_dashboard(intent, amounts[1])
        events["second"] = stripe_app.fake.refund_event("created", second["id"])
        events["total of both"] = stripe_app.fake.charge_refunded(intent)

        for kind in order:
            tell(stripe_app, events[kind])

        kept = state_of(rows, payment_id)
        found = (
            kept["refunded_minor"],
            bool(kept["needs_review"]),
            sorted(
                (row["reference"] or "", row["amount_minor"], row["excess_minor"])
                for row in rows.all("SELECT * FROM refunds WHERE payment_id = :id", id=payment_id)
            ),
        )
        due = (sum(amounts), False, sorted((made["id"], made["amount"], 0) for made in (first, second)))
        if found != due:
            wrong[order] = found
    assert wrong == {}


def test_a_total_of_refunds_is_split_into_those_that_it_is_made_of(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    made = [stripe_app.fake.refund_in_dashboard(intent, amount) for amount in (100_000, 50_000, 150_000)]
    tell(stripe_app, stripe_app.fake.charge_refunded(intent))
    assert shown_refunds(stripe_app, payment_id) == [(3000, "succeeded")]

    for each in made[::-1]:
        tell(stripe_app, stripe_app.fake.refund_event("created", each["id"]))

    assert_money(rows, payment_id, "partially_refunded", refunded=300_000)
    assert shown_refunds(stripe_app, payment_id) == [(500, "succeeded"), (1000, "succeeded"), (1500, "succeeded")]
    assert {row["reference"] for row in rows.all("SELECT reference FROM refunds")} == {each["id"] for each in made}


def test_a_dashboard_refund_beside_one_of_ours_counts_once_each(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    assert refund(stripe_app, payment_id, 1000) == 200
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)

    for event in events_of(stripe_app, intent, made).values():
        tell(stripe_app, event)

    assert_money(rows, payment_id, "partially_refunded", refunded=300_000)
    assert shown_refunds(stripe_app, payment_id) == [(1000, "succeeded"), (2000, "succeeded")]


def test_a_dashboard_refund_on_its_way_is_reserved_until_it_arrives(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    stripe_app.fake.refunds_start_as = "pending"
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))
    assert_money(rows, payment_id, "completed", reserved=200_000)
    assert shown_refunds(stripe_app, payment_id) == [(2000, "pending")]

    stripe_app.fake.settle_refund(made["id"], "succeeded")
    tell(stripe_app, stripe_app.fake.refund_event("updated", made["id"]))

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert shown_refunds(stripe_app, payment_id) == [(2000, "succeeded")]


def test_a_dashboard_refund_on_its_way_is_resumed_without_being_sent(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    stripe_app.fake.refunds_start_as = "pending"
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))
    stripe_app.fake.settle_refund(made["id"], "succeeded")

    resume_all(stripe_app)

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert stripe_app.fake.count("POST", "/v1/refunds") == 0
    assert stripe_app.fake.refunded_total(intent) == 200_000


@pytest.mark.parametrize("starts_as", ["pending", "succeeded"])
def test_a_dashboard_refund_that_fails_counts_no_more(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows, starts_as: str
) -> None:
    stripe_app.fake.refunds_start_as = starts_as
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))
    stripe_app.fake.settle_refund(made["id"], "failed")

    tell(stripe_app, stripe_app.fake.refund_event("failed", made["id"]))

    kept = state_of(rows, payment_id)
    assert (kept["refunded_minor"], kept["refund_reserved_minor"]) == (0, 0)
    assert bool(kept["needs_review"]) is (starts_as == "succeeded")
    assert shown_refunds(stripe_app, payment_id) == [(2000, "failed")]


@pytest.mark.parametrize("starts_as", ["pending", "succeeded"])
def test_a_failed_dashboard_refund_is_not_revived_by_the_late_news_that_it_was_made(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows, starts_as: str
) -> None:
    stripe_app.fake.refunds_start_as = starts_as
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    late = stripe_app.fake.refund_event("created", made["id"])
    stripe_app.fake.settle_refund(made["id"], "failed")
    tell(stripe_app, stripe_app.fake.refund_event("failed", made["id"]))

    tell(stripe_app, late)

    kept = state_of(rows, payment_id)
    assert (kept["status"], kept["refunded_minor"], kept["refund_reserved_minor"]) == ("completed", 0, 0)
    assert shown(stripe_app, payment_id)["refunded_amount"] == 0
    assert [status for _, status in shown_refunds(stripe_app, payment_id)] in ([], ["failed"])
    # All of the money is still there to be returned.
    stripe_app.fake.refunds_start_as = "succeeded"
    assert refund(stripe_app, payment_id) == 200


# Refunds that overtake the money


@pytest.mark.parametrize(("amount", "status"), [(2000, "partially_refunded"), (5000, "refunded")])
@pytest.mark.parametrize("heard", [("created",), ("total",), ("list",), ("total", "created")], ids="-".join)
def test_a_refund_heard_of_before_the_money_ends_right(
    stripe_app: StripeApp, rows: Rows, heard: Sequence[str], amount: int, status: str
) -> None:
    payment_id, intent = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(intent)
    made = stripe_app.fake.refund_in_dashboard(intent, amount * 100)
    events = events_of(stripe_app, intent, made)

    for kind in heard:
        tell(stripe_app, events[kind])
    assert state_of(rows, payment_id)["received_minor"] == 0
    tell(stripe_app, stripe_app.fake.intent_event("succeeded", intent))

    assert_money(rows, payment_id, status, refunded=amount * 100)
    assert shown_refunds(stripe_app, payment_id) == [(amount, "succeeded")]
    assert rows.one("SELECT excess_minor FROM refunds") == {"excess_minor": 0}
    assert invoice_status(rows, payment_id) == ("refunded" if status == "refunded" else "paid")


def test_a_refund_heard_of_before_a_confirm_ends_right(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, intent = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(intent)
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))

    answer = stripe_app.people.patient.confirm(payment_id, intent)

    # The money has come, whatever has gone back since.
    assert answer.status_code == 200
    assert answer.json["data"]["status"] == "partially_refunded"
    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)


# Refunds that do not fit


@pytest.mark.parametrize("heard", [("created",), ("created", "total", "list"), ("list", "created")], ids="-".join)
def test_a_dashboard_refund_that_does_not_fit_is_recorded_and_counted_once_ours_has_failed(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows, heard: Sequence[str]
) -> None:
    # Ours never arrived there, but as far as anybody knows it may have.
    stripe_app.fake.misbehave("error_before")
    assert refund(stripe_app, payment_id) == 202
    made = stripe_app.fake.refund_in_dashboard(intent, ALL_MINOR)
    events = events_of(stripe_app, intent, made)

    for kind in heard:
        tell(stripe_app, events[kind])

    assert_money(rows, payment_id, "completed", reserved=ALL_MINOR, needs_review=True)
    assert shown_refunds(stripe_app, payment_id) == [(5000, "succeeded"), (5000, "unknown")]
    assert shown(stripe_app, payment_id)["refunded_amount"] == 0
    assert rows.one("SELECT excess_minor FROM refunds WHERE made_elsewhere") == {"excess_minor": ALL_MINOR}

    resume_all(stripe_app)  # Stripe has nothing left to refund, and says so

    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert shown_refunds(stripe_app, payment_id) == [(5000, "failed"), (5000, "succeeded")]
    assert rows.one("SELECT excess_minor FROM refunds WHERE made_elsewhere") == {"excess_minor": 0}
    assert stripe_app.fake.refunded_total(intent) == ALL_MINOR
    assert invoice_status(rows, payment_id) == "refunded"


def test_a_dashboard_refund_that_fits_in_part_is_counted_in_part(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    stripe_app.fake.misbehave("error_before")
    assert refund(stripe_app, payment_id, 3000) == 202
    made = stripe_app.fake.refund_in_dashboard(intent, 400_000)

    tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000, reserved=300_000, needs_review=True)
    assert rows.one("SELECT excess_minor FROM refunds WHERE made_elsewhere") == {"excess_minor": 200_000}

    resume_all(stripe_app)

    # Ours was declined, for want of money: that made room for all of the other, and there is nothing left to look at.
    assert_money(rows, payment_id, "partially_refunded", refunded=400_000)
    assert stripe_app.fake.refunded_total(intent) == 400_000


def test_a_refund_heard_of_before_its_money_does_not_stop_resume(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, intent = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(intent)
    stripe_app.fake.refunds_start_as = "pending"
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))

    resume_all(stripe_app)
    tell(stripe_app, stripe_app.fake.intent_event("succeeded", intent))
    assert_money(rows, payment_id, "completed", reserved=200_000)

    stripe_app.fake.settle_refund(made["id"], "succeeded")
    resume_all(stripe_app)
    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)


# What is none of our business


def test_refunds_of_intents_of_others_are_kept_and_have_no_effect(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    before = state_of(rows, payment_id)
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    events = [
        *events_of(stripe_app, intent, made).values(),
        stripe_app.fake.refund_event("failed", made["id"]),
        stripe_app.fake.refund_event("updated", made["id"]),
    ]
    for number, event in enumerate(events):
        thing = event["data"]["object"]
        thing.update(payment_intent="pi_of_others", metadata={"payment_id": str(payment_id), "refund_id": "1"})
        for listed in thing.get("refunds", {}).get("data", []):
            listed["payment_intent"] = "pi_of_others"
        tell(stripe_app, {**event, "id": f"evt_{number}"})

    assert state_of(rows, payment_id) == before
    assert rows.count("refunds") == 0
    assert rows.count("webhook_events", "payment_id IS NULL") == len(events)


def test_refunds_of_charges_without_an_intent_are_kept_and_have_no_effect(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    """Stripe has those: older ways to pay, which others in the same account may use."""
    unpaid_id, _ = open_by_card(stripe_app.people, 6)
    before = state_of(rows, payment_id), state_of(rows, unpaid_id)
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    for event in (stripe_app.fake.refund_event("created", made["id"]), stripe_app.fake.charge_refunded(intent)):
        event["data"]["object"]["payment_intent"] = None
        tell(stripe_app, event)

    assert (state_of(rows, payment_id), state_of(rows, unpaid_id)) == before
    assert rows.count("webhook_events", "payment_id IS NULL") == 2
    assert rows.count("refunds") == 0


def test_a_refund_that_names_a_refund_of_another_payment_settles_only_its_own(
    stripe_app: StripeApp, payment_id: int, intent: str, rows: Rows
) -> None:
    other_id = pay_by_card(stripe_app.people, stripe_app.fake, 6)
    stripe_app.fake.misbehave("error_before")
    assert refund(stripe_app, other_id, 2000) == 202
    ours = rows.one("SELECT id FROM refunds")["id"]
    made = stripe_app.fake.refund_in_dashboard(intent, 200_000)
    event = stripe_app.fake.refund_event("created", made["id"])
    event["data"]["object"]["metadata"] = {"refund_id": str(ours), "payment_id": str(other_id)}

    tell(stripe_app, event)

    assert_money(rows, other_id, "completed", reserved=200_000)
    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
