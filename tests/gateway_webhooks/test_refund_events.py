"""What Stripe says of refunds, ours and those made in its dashboard: each counts once, whatever tells of it when."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from payments_app import clock
from payments_app.payments.models.event import Deed
from payments_app.refunds import service as process
from tests.gateway_webhooks import state_of, tell, trail_of
from tests.support.fake_stripe_state import Wire
from tests.support.rows import Rows
from tests.support.stripe_apps import CardShop, open_by_card, pay_by_card

ALL_MINOR = 500_000


pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def payment_id(shop: CardShop) -> int:
    """A payment of 5,000 that is paid and confirmed."""
    return pay_by_card(shop.people, shop.fake, 5)


@pytest.fixture
def intent(shop: CardShop, payment_id: int) -> str:  # noqa: ARG001  # it is the payment's
    (reference,) = shop.fake.intents
    return reference


def refund(shop: CardShop, payment_id: int, amount: int | None = None) -> int:
    """Ask for a refund; the status of the answer."""
    body = {} if amount is None else {"amount": amount}
    return shop.people.admin.post(f"/payments/{payment_id}/refund", body).status_code


def shown(shop: CardShop, payment_id: int) -> dict[str, Any]:
    data: dict[str, Any] = shop.people.admin.get(f"/payments/{payment_id}").json["data"]
    return data


def shown_refunds(shop: CardShop, payment_id: int) -> list[tuple[float, str]]:
    """Amounts in major units, and statuses."""
    return sorted((each["amount"], each["status"]) for each in shown(shop, payment_id)["refunds"])


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


def resume_all(shop: CardShop) -> None:
    """As ``flask refunds resume`` does."""
    with shop.app.app_context():
        for refund_id in list(process.find_open(clock.now())):
            process.resume(refund_id, lease_seconds=2, deed=Deed("command:resume", None, clock.now()))


# Refunds of ours


def test_a_refund_whose_answer_was_lost_is_settled_by_an_event(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    shop.fake.misbehave("drop")
    assert refund(shop, payment_id) == 202
    assert_money(rows, payment_id, "completed", reserved=ALL_MINOR)
    (made,) = shop.fake.refunds_of(intent)

    for kind in ("created", "updated", "updated"):
        tell(shop, shop.fake.refund_event(kind, made["id"]))

    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert shown_refunds(shop, payment_id) == [(5000, "succeeded")]
    assert rows.one("SELECT reference, made_elsewhere FROM refunds") == {
        "reference": made["id"],
        "made_elsewhere": False,
    }
    assert invoice_status(rows, payment_id) == "refunded"
    assert trail_of(rows, payment_id).count("refund.succeeded") == 1


def test_a_refund_on_its_way_is_settled_by_an_event(shop: CardShop, payment_id: int, intent: str, rows: Rows) -> None:
    shop.fake.refunds_start_as = "pending"
    assert refund(shop, payment_id, 2000) == 202
    (made,) = shop.fake.refunds_of(intent)
    started = shop.fake.refund_event("created", made["id"])
    shop.fake.settle_refund(made["id"], "succeeded")

    tell(shop, shop.fake.refund_event("updated", made["id"]))
    tell(shop, started)  # late: what it says is not so any more

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert shown_refunds(shop, payment_id) == [(2000, "succeeded")]


@pytest.mark.parametrize("kind", ["refund.failed", "refund.updated", "charge.refund.updated"])
def test_a_refund_on_its_way_that_fails_frees_its_money(
    shop: CardShop, payment_id: int, intent: str, rows: Rows, kind: str
) -> None:
    shop.fake.refunds_start_as = "pending"
    assert refund(shop, payment_id, 2000) == 202
    assert_money(rows, payment_id, "completed", reserved=200_000)
    (made,) = shop.fake.refunds_of(intent)
    shop.fake.settle_refund(made["id"], "failed")

    for _ in range(2):
        tell(shop, shop.fake.event(kind, shop.fake.refunds[made["id"]]))

    assert_money(rows, payment_id, "completed")
    assert shown_refunds(shop, payment_id) == [(2000, "failed")]
    assert trail_of(rows, payment_id).count("refund.failed") == 1
    shop.fake.refunds_start_as = "succeeded"
    assert refund(shop, payment_id) == 200
    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)


@pytest.mark.parametrize("after", [(2000, "partially_refunded"), (5000, "refunded")], ids=str)
def test_a_refund_that_succeeded_and_then_failed_is_for_staff_to_see(
    shop: CardShop, payment_id: int, intent: str, rows: Rows, after: tuple[int, str]
) -> None:
    amount, status = after
    assert refund(shop, payment_id, amount) == 200
    (made,) = shop.fake.refunds_of(intent)
    assert_money(rows, payment_id, status, refunded=amount * 100)
    shop.fake.settle_refund(made["id"], "failed")

    for _ in range(2):
        tell(shop, shop.fake.refund_event("failed", made["id"]))

    assert_money(rows, payment_id, status, needs_review=True)
    assert shown_refunds(shop, payment_id) == [(amount, "failed")]
    assert shown(shop, payment_id)["refunded_amount"] == 0
    # Sent once more it is even, and nobody has to look any more.
    assert refund(shop, payment_id) == 200
    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert shop.fake.refunded_total(intent) == ALL_MINOR


def test_older_news_of_a_refund_that_resume_has_found_failed_changes_nothing(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    """Its answer was lost, so that nothing but the look-up has told us Stripe's name for it."""
    shop.fake.misbehave("drop")
    assert refund(shop, payment_id, 2000) == 202
    (made,) = shop.fake.refunds_of(intent)
    older = [shop.fake.refund_event("created", made["id"]), shop.fake.charge_refunded(intent)]
    shop.fake.settle_refund(made["id"], "failed")
    resume_all(shop)
    assert_money(rows, payment_id, "completed")
    version = state_of(rows, payment_id)["version"]

    for event in reversed(older):
        tell(shop, event)

    assert_money(rows, payment_id, "completed")
    assert state_of(rows, payment_id)["version"] == version
    assert shown_refunds(shop, payment_id) == [(2000, "failed")]
    assert rows.one("SELECT reference FROM refunds") == {"reference": made["id"]}


def test_the_total_of_a_refund_of_ours_is_not_counted_again(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    assert refund(shop, payment_id, 2000) == 200

    tell(shop, shop.fake.charge_refunded(intent))
    tell(shop, shop.fake.charge_refunded(intent, with_refunds=True))

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert shown_refunds(shop, payment_id) == [(2000, "succeeded")]


# Refunds made in the dashboard


def news_of(shop: CardShop, intent: str, made: Wire) -> dict[str, Wire]:
    """All the ways in which Stripe tells of one refund."""
    return {
        "created": shop.fake.refund_event("created", made["id"]),
        "total": shop.fake.charge_refunded(intent),
        "list": shop.fake.charge_refunded(intent, with_refunds=True),
    }


WAYS_TO_HEAR = [order for length in (1, 2, 3) for order in itertools.permutations(("created", "total", "list"), length)]


@pytest.mark.parametrize("heard", WAYS_TO_HEAR, ids="-".join)
def test_a_refund_made_in_the_dashboard_counts_once(
    shop: CardShop, payment_id: int, intent: str, rows: Rows, heard: Sequence[str]
) -> None:
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    news = news_of(shop, intent, made)

    for kind in heard:
        tell(shop, news[kind])

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert shown_refunds(shop, payment_id) == [(2000, "succeeded")]
    assert shown(shop, payment_id)["refunded_amount"] == 2000
    reference = None if heard == ("total",) else made["id"]
    assert rows.one("SELECT reference, made_elsewhere FROM refunds") == {"reference": reference, "made_elsewhere": True}
    # In other events, and once more in all of them: nothing new.
    version = state_of(rows, payment_id)["version"]
    for again in news_of(shop, intent, made).values():
        tell(shop, again)
    assert state_of(rows, payment_id)["version"] == version
    assert shown_refunds(shop, payment_id) == [(2000, "succeeded")]


def test_a_dashboard_refund_of_all_ends_the_payment(shop: CardShop, payment_id: int, intent: str, rows: Rows) -> None:
    made = shop.fake.refund_in_dashboard(intent, ALL_MINOR)

    tell(shop, shop.fake.refund_event("created", made["id"]))

    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert invoice_status(rows, payment_id) == "refunded"
    assert refund(shop, payment_id) == 409
    assert shop.people.patient.pay(5).status_code == 201


def test_a_dashboard_refund_leaves_less_to_refund(shop: CardShop, payment_id: int, intent: str, rows: Rows) -> None:
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    tell(shop, shop.fake.refund_event("created", made["id"]))

    assert refund(shop, payment_id, 4000) == 422
    assert refund(shop, payment_id) == 200

    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert shown_refunds(shop, payment_id) == [(2000, "succeeded"), (3000, "succeeded")]
    assert shop.fake.refunded_total(intent) == ALL_MINOR


TWO_REFUNDS = ("total of one", "total of both", "first", "second")


# On SQLite in the long form: the orders are judged by the same code, and cost as much again.
@pytest.mark.parametrize(
    "database", [pytest.param("sqlite", marks=pytest.mark.long), "postgresql"], indirect=True, scope="session"
)
@pytest.mark.parametrize("amounts", [(300_000, 200_000), (100_000, 300_000), (200_000, 200_000)], ids=str)
def test_two_dashboard_refunds_count_once_each_whatever_is_heard_first(
    shop: CardShop, rows: Rows, amounts: tuple[int, int]
) -> None:
    """All 24 orders of four events, each on a payment of its own; those that go wrong are named together."""
    shop.people.add_consultations("patient", 101, 124)
    wrong = {}
    for number, order in enumerate(itertools.permutations(TWO_REFUNDS)):
        payment_id = pay_by_card(shop.people, shop.fake, 101 + number)
        intent = state_of(rows, payment_id)["transaction_id"]
        first = shop.fake.refund_in_dashboard(intent, amounts[0])
        news = {
            "first": shop.fake.refund_event("created", first["id"]),
            "total of one": shop.fake.charge_refunded(intent),
        }
        second = shop.fake.refund_in_dashboard(intent, amounts[1])
        news["second"] = shop.fake.refund_event("created", second["id"])
        news["total of both"] = shop.fake.charge_refunded(intent)

        for kind in order:
            tell(shop, news[kind])

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
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    made = [shop.fake.refund_in_dashboard(intent, amount) for amount in (100_000, 50_000, 150_000)]
    tell(shop, shop.fake.charge_refunded(intent))
    assert shown_refunds(shop, payment_id) == [(3000, "succeeded")]

    for each in made[::-1]:
        tell(shop, shop.fake.refund_event("created", each["id"]))

    assert_money(rows, payment_id, "partially_refunded", refunded=300_000)
    assert shown_refunds(shop, payment_id) == [(500, "succeeded"), (1000, "succeeded"), (1500, "succeeded")]
    assert {row["reference"] for row in rows.all("SELECT reference FROM refunds")} == {each["id"] for each in made}


def test_a_dashboard_refund_beside_one_of_ours_counts_once_each(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    assert refund(shop, payment_id, 1000) == 200
    made = shop.fake.refund_in_dashboard(intent, 200_000)

    for event in news_of(shop, intent, made).values():
        tell(shop, event)

    assert_money(rows, payment_id, "partially_refunded", refunded=300_000)
    assert shown_refunds(shop, payment_id) == [(1000, "succeeded"), (2000, "succeeded")]


def test_a_dashboard_refund_on_its_way_is_reserved_until_it_arrives(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    shop.fake.refunds_start_as = "pending"
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    tell(shop, shop.fake.refund_event("created", made["id"]))
    assert_money(rows, payment_id, "completed", reserved=200_000)
    assert shown_refunds(shop, payment_id) == [(2000, "pending")]

    shop.fake.settle_refund(made["id"], "succeeded")
    tell(shop, shop.fake.refund_event("updated", made["id"]))

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert shown_refunds(shop, payment_id) == [(2000, "succeeded")]


def test_a_dashboard_refund_on_its_way_is_resumed_without_being_sent(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    shop.fake.refunds_start_as = "pending"
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    tell(shop, shop.fake.refund_event("created", made["id"]))
    shop.fake.settle_refund(made["id"], "succeeded")

    resume_all(shop)

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
    assert shop.fake.count("POST", "/v1/refunds") == 0
    assert shop.fake.refunded_total(intent) == 200_000


@pytest.mark.parametrize("starts_as", ["pending", "succeeded"])
def test_a_dashboard_refund_that_fails_counts_no_more(
    shop: CardShop, payment_id: int, intent: str, rows: Rows, starts_as: str
) -> None:
    shop.fake.refunds_start_as = starts_as
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    tell(shop, shop.fake.refund_event("created", made["id"]))
    shop.fake.settle_refund(made["id"], "failed")

    tell(shop, shop.fake.refund_event("failed", made["id"]))

    kept = state_of(rows, payment_id)
    assert (kept["refunded_minor"], kept["refund_reserved_minor"]) == (0, 0)
    assert bool(kept["needs_review"]) is (starts_as == "succeeded")
    assert shown_refunds(shop, payment_id) == [(2000, "failed")]


@pytest.mark.parametrize("starts_as", ["pending", "succeeded"])
def test_a_failed_dashboard_refund_is_not_revived_by_the_late_news_that_it_was_made(
    shop: CardShop, payment_id: int, intent: str, rows: Rows, starts_as: str
) -> None:
    shop.fake.refunds_start_as = starts_as
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    late = shop.fake.refund_event("created", made["id"])
    shop.fake.settle_refund(made["id"], "failed")
    tell(shop, shop.fake.refund_event("failed", made["id"]))

    tell(shop, late)

    kept = state_of(rows, payment_id)
    assert (kept["status"], kept["refunded_minor"], kept["refund_reserved_minor"]) == ("completed", 0, 0)
    assert shown(shop, payment_id)["refunded_amount"] == 0
    assert [status for _, status in shown_refunds(shop, payment_id)] in ([], ["failed"])
    # All of the money is still there to be returned.
    shop.fake.refunds_start_as = "succeeded"
    assert refund(shop, payment_id) == 200


# Refunds that overtake the money


@pytest.mark.parametrize(("amount", "status"), [(2000, "partially_refunded"), (5000, "refunded")])
@pytest.mark.parametrize("heard", [("created",), ("total",), ("list",), ("total", "created")], ids="-".join)
def test_a_refund_heard_of_before_the_money_ends_right(
    shop: CardShop, rows: Rows, heard: Sequence[str], amount: int, status: str
) -> None:
    payment_id, intent = open_by_card(shop.people, 5)
    shop.fake.pay(intent)
    made = shop.fake.refund_in_dashboard(intent, amount * 100)
    news = news_of(shop, intent, made)

    for kind in heard:
        tell(shop, news[kind])
    assert state_of(rows, payment_id)["received_minor"] == 0
    tell(shop, shop.fake.intent_event("succeeded", intent))

    assert_money(rows, payment_id, status, refunded=amount * 100)
    assert shown_refunds(shop, payment_id) == [(amount, "succeeded")]
    assert rows.one("SELECT excess_minor FROM refunds") == {"excess_minor": 0}
    assert invoice_status(rows, payment_id) == ("refunded" if status == "refunded" else "paid")


def test_a_refund_heard_of_before_a_confirm_ends_right(shop: CardShop, rows: Rows) -> None:
    payment_id, intent = open_by_card(shop.people, 5)
    shop.fake.pay(intent)
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    tell(shop, shop.fake.refund_event("created", made["id"]))

    answer = shop.people.patient.confirm(payment_id, intent)

    # The money has come, whatever has gone back since.
    assert answer.status_code == 200
    assert answer.json["data"]["status"] == "partially_refunded"
    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)


# Refunds that do not fit


@pytest.mark.parametrize("heard", [("created",), ("created", "total", "list"), ("list", "created")], ids="-".join)
def test_a_dashboard_refund_that_does_not_fit_is_recorded_and_counted_once_ours_has_failed(
    shop: CardShop, payment_id: int, intent: str, rows: Rows, heard: Sequence[str]
) -> None:
    # Ours never arrived there, but as far as anybody knows it may have.
    shop.fake.misbehave("error_before")
    assert refund(shop, payment_id) == 202
    made = shop.fake.refund_in_dashboard(intent, ALL_MINOR)
    news = news_of(shop, intent, made)

    for kind in heard:
        tell(shop, news[kind])

    assert_money(rows, payment_id, "completed", reserved=ALL_MINOR, needs_review=True)
    assert shown_refunds(shop, payment_id) == [(5000, "succeeded"), (5000, "unknown")]
    assert shown(shop, payment_id)["refunded_amount"] == 0
    assert rows.one("SELECT excess_minor FROM refunds WHERE made_elsewhere") == {"excess_minor": ALL_MINOR}

    resume_all(shop)  # Stripe has nothing left to refund, and says so

    assert_money(rows, payment_id, "refunded", refunded=ALL_MINOR)
    assert shown_refunds(shop, payment_id) == [(5000, "failed"), (5000, "succeeded")]
    assert rows.one("SELECT excess_minor FROM refunds WHERE made_elsewhere") == {"excess_minor": 0}
    assert shop.fake.refunded_total(intent) == ALL_MINOR
    assert invoice_status(rows, payment_id) == "refunded"


def test_a_dashboard_refund_that_fits_in_part_is_counted_in_part(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    shop.fake.misbehave("error_before")
    assert refund(shop, payment_id, 3000) == 202
    made = shop.fake.refund_in_dashboard(intent, 400_000)

    tell(shop, shop.fake.refund_event("created", made["id"]))

    assert_money(rows, payment_id, "partially_refunded", refunded=200_000, reserved=300_000, needs_review=True)
    assert rows.one("SELECT excess_minor FROM refunds WHERE made_elsewhere") == {"excess_minor": 200_000}

    resume_all(shop)

    # Ours was declined, for want of money: that made room for all of the other, and there is nothing left to look at.
    assert_money(rows, payment_id, "partially_refunded", refunded=400_000)
    assert shop.fake.refunded_total(intent) == 400_000


def test_a_refund_heard_of_before_its_money_does_not_stop_resume(shop: CardShop, rows: Rows) -> None:
    payment_id, intent = open_by_card(shop.people, 5)
    shop.fake.pay(intent)
    shop.fake.refunds_start_as = "pending"
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    tell(shop, shop.fake.refund_event("created", made["id"]))

    resume_all(shop)
    tell(shop, shop.fake.intent_event("succeeded", intent))
    assert_money(rows, payment_id, "completed", reserved=200_000)

    shop.fake.settle_refund(made["id"], "succeeded")
    resume_all(shop)
    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)


# What is none of our business


def test_refunds_of_intents_of_others_are_kept_and_have_no_effect(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    before = state_of(rows, payment_id)
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    events = [
        *news_of(shop, intent, made).values(),
        shop.fake.refund_event("failed", made["id"]),
        shop.fake.refund_event("updated", made["id"]),
    ]
    for number, event in enumerate(events):
        thing = event["data"]["object"]
        thing.update(payment_intent="pi_of_others", metadata={"payment_id": str(payment_id), "refund_id": "1"})
        for listed in thing.get("refunds", {}).get("data", []):
            listed["payment_intent"] = "pi_of_others"
        tell(shop, {**event, "id": f"evt_{number}"})

    assert state_of(rows, payment_id) == before
    assert rows.count("refunds") == 0
    assert rows.count("webhook_events", "payment_id IS NULL") == len(events)


def test_refunds_of_charges_without_an_intent_are_kept_and_have_no_effect(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    """Stripe has those: older ways to pay, which others in the same account may use."""
    unpaid_id, _ = open_by_card(shop.people, 6)
    before = state_of(rows, payment_id), state_of(rows, unpaid_id)
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    for event in (shop.fake.refund_event("created", made["id"]), shop.fake.charge_refunded(intent)):
        event["data"]["object"]["payment_intent"] = None
        tell(shop, event)

    assert (state_of(rows, payment_id), state_of(rows, unpaid_id)) == before
    assert rows.count("webhook_events", "payment_id IS NULL") == 2
    assert rows.count("refunds") == 0


def test_a_refund_that_names_a_refund_of_another_payment_settles_only_its_own(
    shop: CardShop, payment_id: int, intent: str, rows: Rows
) -> None:
    other_id = pay_by_card(shop.people, shop.fake, 6)
    shop.fake.misbehave("error_before")
    assert refund(shop, other_id, 2000) == 202
    ours = rows.one("SELECT id FROM refunds")["id"]
    made = shop.fake.refund_in_dashboard(intent, 200_000)
    event = shop.fake.refund_event("created", made["id"])
    event["data"]["object"]["metadata"] = {"refund_id": str(ours), "payment_id": str(other_id)}

    tell(shop, event)

    assert_money(rows, other_id, "completed", reserved=200_000)
    assert_money(rows, payment_id, "partially_refunded", refunded=200_000)
