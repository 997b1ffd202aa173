"""Refunds above a limit wait for a second person, who approves or rejects them by login, once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from payments_app.payments.models.refund import REQUEST_TTL
from tests.api.assertions import assert_problem
from tests.support.api_keys import key_of
from tests.support.client import ApiResponse
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.fake_stripe import FakeStripe
from tests.support.operations import webhook
from tests.support.people import People, Person
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, pay_by_card, refund, resume_refunds
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("audited")

LIMIT = "2000"


class ApprovingApp(NamedTuple):
    stripe: StripeApp
    people: People
    # Another admin than the one of the people.
    second: Person
    payment_id: int

    @property
    def fake(self) -> FakeStripe:
        return self.stripe.fake

    def request(self, amount: int | None = 3000, key: str | None = None) -> int:
        answer = refund(self.people.admin, self.payment_id, key=key, **({} if amount is None else {"amount": amount}))
        assert (answer.status_code, answer.json["data"]["refund"]["status"]) == (202, "requested"), answer.json
        refund_id: int = answer.json["data"]["refund"]["id"]
        return refund_id

    def returned(self) -> list[int]:
        """What the customer got back, in minor units, by the gateway's books."""
        return [made["amount"] for intent in self.fake.intents for made in self.fake.refunds_of(intent)]


@pytest.fixture
def approving(stripe_apps: Callable[..., StripeApp]) -> ApprovingApp:
    """Approval above 2000; a payment of 5000 by card, completed: version 1."""
    stripe = stripe_apps(REFUND_APPROVAL_ABOVE=LIMIT)
    seen = stripe.people
    return ApprovingApp(stripe, seen, seen.another_admin(), pay_by_card(seen, stripe.fake, 5))


def approve(person: Person, refund_id: int, key: str | None = None, **members: Any) -> ApiResponse:
    headers = {"Idempotency-Key": key} if key else {}
    return person.post(f"/refunds/{refund_id}/approve", members, headers=headers)


def reject(person: Person, refund_id: int, reason: str = "Not agreed") -> ApiResponse:
    return person.post(f"/refunds/{refund_id}/reject", {"reason": reason})


def money_of(rows: Rows) -> tuple[str, int, int]:
    row = rows.one("SELECT status, refund_reserved_minor AS reserved, refunded_minor AS refunded FROM payments")
    return row["status"], row["reserved"], row["refunded"]


def grow_old(rows: Rows, age: timedelta) -> None:
    rows.execute("UPDATE refunds SET created_at = :at", at=rows.moment(datetime.now(UTC) - age))


def test_what_exceeds_the_limit_with_all_before_it_waits_for_another_admin(approving: ApprovingApp, rows: Rows) -> None:
    assert refund(approving.people.admin, approving.payment_id, amount=1500).status_code == 200
    assert refund(approving.people.admin, approving.payment_id, amount=500).status_code == 200  # 2000 in all: not above

    asked = refund(approving.people.admin, approving.payment_id, key="k", amount=1)
    refund_id = asked.json["data"]["refund"]["id"]
    assert (asked.status_code, asked.json["data"]["refund"]["status"]) == (202, "requested")
    assert asked.json["message"] == "The refund waits for another admin's approval; nothing was sent"
    assert money_of(rows) == ("partially_refunded", 100, 200_000)
    assert resume_refunds(approving.stripe.app) == []
    assert sum(approving.returned()) == 200_000
    assert [each["id"] for each in approving.second.get("/refunds?status=requested").json["data"]] == [refund_id]

    approved = approve(approving.second, refund_id, key="yes")
    assert (approved.status_code, approved.json["data"]["refund"]["status"]) == (200, "succeeded")
    assert money_of(rows) == ("partially_refunded", 0, 200_100)
    assert sum(approving.returned()) == 200_100
    for again in (
        approve(approving.second, refund_id, key="yes"),
        refund(approving.people.admin, approving.payment_id, "k", amount=1),
    ):
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert_problem(approve(approving.second, refund_id), 409, code="refund-not-requested")
    shown = approving.second.get(f"/refunds/{refund_id}").json["data"]
    assert (shown["requested_by"], shown["approved_by"]) == (approving.people.admin.id, approving.second.id)
    events = approving.second.get(f"/payments/{approving.payment_id}/events").json["data"][-3:]
    assert [(event["event"], event["actor"]) for event in events] == [
        ("refund.requested", f"admin:{approving.people.admin.id}"),
        ("refund.approved", f"admin:{approving.second.id}"),
        ("refund.succeeded", f"admin:{approving.second.id}"),
    ]


def test_nobody_decides_alone_nor_by_a_key(approving: ApprovingApp, rows: Rows) -> None:
    program = key_of(approving.people, approving.people.admin)
    by_program = refund(program, approving.payment_id, amount=2500).json["data"]["refund"]["id"]
    refund_id = approving.request(amount=1000)

    for person, code in (
        (approving.people.admin, "second-person-needed"),
        (key_of(approving.people, approving.second), "login-required"),
        (approving.people.patient, "forbidden"),
        (approving.people.booking, "forbidden"),
    ):
        assert_problem(approve(person, refund_id), 403, code=code)
        assert_problem(reject(person, refund_id), 403, code=code)
    # The key's user is the person who requested it.
    assert_problem(approve(approving.people.admin, by_program), 403, code="second-person-needed")
    assert_problem(reject(approving.second, refund_id, reason=""), 422, "reason")
    assert_problem(approve(approving.second, 999_999), 404, code="refund-not-found")
    assert_problem(approve(approving.second, refund_id, expected_version=1), 409, code="version-conflict")
    assert rows.count("refunds", "status = 'requested'") == 2
    assert (approving.returned(), money_of(rows)) == ([], ("completed", 350_000, 0))


def test_a_rejected_one_fails_with_its_reason_and_frees_its_money(approving: ApprovingApp, rows: Rows) -> None:
    refund_id = approving.request(amount=None, key="k")
    assert_problem(
        refund(approving.people.admin, approving.payment_id, amount=1), 422, "amount", code="refund-exceeds-balance"
    )

    rejected = reject(approving.second, refund_id, "The patient agreed to another date")
    assert (rejected.status_code, rejected.json["data"]["refund"]["status"]) == (200, "failed")
    assert money_of(rows) == ("completed", 0, 0)
    for again in (reject(approving.second, refund_id), approve(approving.second, refund_id)):
        assert_problem(again, 409, code="refund-not-requested")
        assert again.json["data"] == {"status": "failed"}
    replay = refund(approving.people.admin, approving.payment_id, key="k")
    assert_problem(replay, 402, code="refund-declined")
    assert replay.json["data"] == {"refund_id": refund_id, "reason": "Rejected: The patient agreed to another date"}
    assert "gateway" not in replay.json["detail"]
    assert approving.returned() == []
    assert refund(approving.people.admin, approving.payment_id, amount=1).status_code == 200


def test_a_command_tells_that_its_refund_was_rejected(
    approving: ApprovingApp, rows: Rows, commands: CommandRunner
) -> None:
    asked = ("refunds", "create", approving.payment_id, "--amount", "3000", "--idempotency-key", "k", "--yes")
    commands.ok(*asked)
    assert reject(approving.second, rows.one("SELECT id FROM refunds")["id"]).status_code == 200

    said = commands.refused(*asked)

    assert said == "Error: The refund was not sent; no money was returned. The reason: Rejected: Not agreed"


def test_a_disputed_one_is_not_approved_and_can_be_rejected(approving: ApprovingApp, rows: Rows) -> None:
    refund_id = approving.request()
    rows.execute("UPDATE payments SET is_disputed = :yes", yes=True)

    assert_problem(approve(approving.second, refund_id), 409, code="payment-disputed")
    assert (approving.returned(), money_of(rows)) == ([], ("completed", 300_000, 0))
    assert reject(approving.second, refund_id).status_code == 200
    rows.execute("UPDATE payments SET is_disputed = :no", no=False)


def test_after_seven_days_it_lapses(approving: ApprovingApp, rows: Rows, commands: CommandRunner) -> None:
    refund_id = approving.request()
    grow_old(rows, REQUEST_TTL - timedelta(minutes=1))
    assert commands.json("payments", "expire")[0]["refunds_lapsed"] == 0
    grow_old(rows, REQUEST_TTL)

    assert_problem(approve(approving.second, refund_id), 409, code="refund-request-lapsed")
    assert money_of(rows) == ("completed", 300_000, 0)
    assert commands.json("payments", "expire")[0]["refunds_lapsed"] == 1
    assert commands.json("payments", "expire")[0]["refunds_lapsed"] == 0
    assert money_of(rows) == ("completed", 0, 0)
    assert rows.one("SELECT status, decline_reason FROM refunds") == {
        "status": "failed",
        "decline_reason": "Nobody approved it within 7 days.",
    }
    assert approving.returned() == []


def test_commands_may_request_and_by_hand_it_is_sent_after_approval(
    approving: ApprovingApp, rows: Rows, commands: CommandRunner
) -> None:
    payment_id = approving.people.patient.pay(6, payment_method="gcash").json["data"]["payment_id"]
    approving.people.admin.confirm(payment_id, "IN-1")

    said = commands.ok("refunds", "create", payment_id, "--amount", "2500", "--yes")
    (requested,) = commands.json("refunds", "list", "--status", "requested")
    assert "Another admin has to approve" in said
    settled = approving.second.post(f"/refunds/{requested['id']}/settle", {"reference": "GC-1"})
    assert_problem(settled, 409, code="refund-not-to-be-sent")
    commands.refused("refunds", "give-up", requested["id"], "--yes")

    approved = approve(approving.second, requested["id"])
    assert (approved.status_code, approved.json["data"]["refund"]["status"]) == (202, "pending")
    assert resume_refunds(approving.stripe.app) == []
    settled = approving.people.admin.post(f"/refunds/{requested['id']}/settle", {"reference": "GC-1"})
    assert (settled.status_code, settled.json["data"]["refund"]["status"]) == (200, "succeeded")
    assert rows.one("SELECT sum(refunded_minor) AS minor FROM payments") == {"minor": 250_000}


@pytest.mark.parametrize("rounds", [4])
def test_two_admins_who_approve_and_reject_at_once_decide_once(
    approving: ApprovingApp, rows: Rows, rounds: int
) -> None:
    third = approving.people.admin
    for number in range(rounds):
        requested = refund(key_of(approving.people, approving.people.admin), approving.payment_id, amount=4999).json[
            "data"
        ]
        refund_id = requested["refund"]["id"]
        rows.execute("UPDATE refunds SET requested_by = 0 WHERE id = :id", id=refund_id)  # so that both may decide
        gate = threading.Barrier(4)

        def decide(act: Any, gate: threading.Barrier = gate) -> ApiResponse:
            gate.wait(PATIENCE_SECONDS)
            answer: ApiResponse = act()
            while answer.status_code in (409, 503) and answer.json["retryable"]:
                answer = act()
            return answer

        acts = [
            lambda r=refund_id: approve(approving.second, r),
            lambda r=refund_id: approve(third, r),
            lambda r=refund_id: reject(approving.second, r),
            lambda r=refund_id: reject(third, r),
        ]
        with ThreadPoolExecutor(len(acts)) as pool:
            answers = list(pool.map(decide, acts if number % 2 else acts[::-1]))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
        if money_of(rows)[2]:
            break
    refunds = rows.all("SELECT status, amount_minor FROM refunds")
    assert sum(approving.returned()) == money_of(rows)[2]
    assert sum(each["amount_minor"] for each in refunds if each["status"] == "succeeded") == money_of(rows)[2]
    assert money_of(rows)[1] == 0


def test_one_that_lapses_while_it_is_approved_is_sent_or_lapses(
    approving: ApprovingApp, rows: Rows, commands: CommandRunner
) -> None:
    refund_id = approving.request()
    grow_old(rows, REQUEST_TTL - timedelta(seconds=0.1))

    with ThreadPoolExecutor(2) as pool:
        decision = pool.submit(approve, approving.second, refund_id)
        lapsed = 0
        while rows.count("refunds", "status = 'requested'"):
            lapsed += commands.json("payments", "expire")[0]["refunds_lapsed"]
        answer = decision.result()

    assert (answer.status_code, lapsed) in ((200, 0), (409, 1))
    refunded_minor = 300_000 if answer.status_code == 200 else 0
    assert (sum(approving.returned()), money_of(rows)[1:]) == (refunded_minor, (0, refunded_minor))


@pytest.mark.parametrize("mode", ["drop", "error_before"])
def test_one_that_was_approved_late_is_sent_once_although_the_first_answer_was_lost(
    approving: ApprovingApp, rows: Rows, mode: Any
) -> None:
    """Stripe remembers keys for a day, counted from the approval: the request is six days old."""
    refund_id = approving.request()
    grow_old(rows, timedelta(days=6))
    approving.fake.misbehave(mode)

    lost = approve(approving.second, refund_id, key="yes")
    assert (lost.status_code, lost.json["data"]["refund"]["status"]) == (202, "unknown")
    (resumed,) = resume_refunds(approving.stripe.app)
    assert resumed is not None
    assert (resumed.status, approving.returned()) == ("succeeded", [300_000])
    again = approve(approving.second, refund_id, key="yes")
    assert (again.status_code, again.json["data"]["refund"]["status"]) == (200, "succeeded")
    assert money_of(rows) == ("partially_refunded", 0, 300_000)


def test_a_total_of_the_gateway_does_not_count_the_one_that_waits(approving: ApprovingApp, rows: Rows) -> None:
    """Otherwise a refund made in the dashboard, of the same amount, would be taken for it."""
    approving.request(amount=2500)
    (intent,) = approving.fake.intents
    approving.fake.refund_in_dashboard(intent, 250_000)

    assert webhook(approving.fake.charge_refunded(intent)).do(approving.stripe.app).word == "200"

    assert money_of(rows) == ("partially_refunded", 250_000, 250_000)
    assert rows.count("refunds", "made_elsewhere AND status = 'succeeded'") == 1


@pytest.fixture
def commands(approving: ApprovingApp, database: Database) -> Iterator[CommandRunner]:
    settings = {
        "STRIPE_API_KEY": approving.fake.api_key,
        "STRIPE_API_BASE": approving.fake.url,
        "REFUND_APPROVAL_ABOVE": LIMIT,
    }
    with commands_on(database.url, **settings) as commands:
        yield commands
