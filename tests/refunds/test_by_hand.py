"""Refunds that people send: to be sent until staff say by which transfer they were, and each transfer sends one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.assertions import assert_problem
from tests.payments.test_lists import walk
from tests.support.api_keys import key_of
from tests.support.client import ApiResponse
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.people import People, Person
from tests.support.rows import Rows
from tests.support.stripe_apps import refund, resume_refunds
from tests.support.waiting import PATIENCE_SECONDS

RACERS = 20

pytestmark = pytest.mark.usefixtures("audited")


def pay_by_hand(people: People, consultation_id: int = 5, method: str = "gcash") -> int:
    """A payment of 5000 by hand, completed: version 1."""
    payment_id: int = people.patient.pay(consultation_id, payment_method=method).json["data"]["payment_id"]
    assert people.admin.confirm(payment_id, f"IN-{consultation_id}").status_code == 200
    return payment_id


def refund_by_hand(people: People, payment_id: int, **members: Any) -> int:
    answer = refund(people.admin, payment_id, **members)
    assert (answer.status_code, answer.json["data"]["refund"]["status"]) == (202, "pending"), answer.json
    refund_id: int = answer.json["data"]["refund"]["id"]
    return refund_id


def settle(person: Person, refund_id: int, reference: str, key: str | None = None, **members: Any) -> ApiResponse:
    headers = {"Idempotency-Key": key} if key else {}
    return person.post(f"/refunds/{refund_id}/settle", {"reference": reference, **members}, headers=headers)


def money_of(rows: Rows, payment_id: int) -> tuple[str, int, int]:
    row = rows.one(
        "SELECT status, refund_reserved_minor AS reserved, refunded_minor AS refunded FROM payments WHERE id = :id",
        id=payment_id,
    )
    return row["status"], row["reserved"], row["refunded"]


def test_a_refund_by_hand_is_to_be_sent_until_staff_say_that_it_was(people: People, rows: Rows) -> None:
    payment_id = pay_by_hand(people)

    asked = refund(people.admin, payment_id, key="k", amount=1500, reason="Half the time")
    assert asked.status_code == 202
    assert asked.json["message"] == "The refund is recorded; staff have to send the money"
    refund_id = asked.json["data"]["refund"]["id"]
    assert asked.json["data"]["refund"]["by_hand"] is True
    assert money_of(rows, payment_id) == ("completed", 150_000, 0)
    # Nobody else's matter: resume neither finds it nor looks it up.
    assert resume_refunds(people.app) == []
    assert money_of(rows, payment_id) == ("completed", 150_000, 0)

    sent = settle(people.admin, refund_id, "GC 778-221")
    assert sent.status_code == 200
    assert sent.headers["ETag"] == '"3"'
    assert sent.json["message"] == "Refund made"
    assert sent.json["data"]["refund"]["status"] == "succeeded"
    assert sent.json["data"]["payment"]["status"] == "partially_refunded"
    assert money_of(rows, payment_id) == ("partially_refunded", 0, 150_000)
    events = people.patient.get(f"/payments/{payment_id}/events").json["data"]
    assert [(event["event"], event["version"]) for event in events[2:]] == [
        ("refund.requested", 2),
        ("refund.succeeded", 3),
    ]
    # The key of the refund itself tells the present outcome.
    again = refund(people.admin, payment_id, key="k", amount=1500, reason="Half the time")
    assert (again.status_code, again.json["data"]["refund"]["status"]) == (200, "succeeded")
    shown = people.admin.get(f"/refunds/{refund_id}")
    assert shown.headers["ETag"] == '"3"'
    assert {name: shown.json["data"][name] for name in ("gateway", "payment_method", "reference", "requested_by")} == {
        "gateway": "manual",
        "payment_method": "gcash",
        "reference": "GC 778-221",
        "requested_by": people.admin.id,
    }


def test_the_same_transfer_again_is_a_retry_and_another_one_is_refused(people: People, rows: Rows) -> None:
    refund_id = refund_by_hand(people, pay_by_hand(people))
    assert settle(people.admin, refund_id, "GC 778-221", key="first").status_code == 200
    before = rows.all("SELECT * FROM payments") + rows.all("SELECT * FROM refunds")

    for again in (
        settle(people.admin, refund_id, "GC 778-221", key="first"),
        settle(people.admin, refund_id, "\uff47\uff43\N{EN DASH}778221"),
    ):
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    other = settle(people.admin, refund_id, "GC-1")
    assert_problem(other, 409, code="refund-already-sent")
    assert other.json["data"] == {"reference": "GC 778-221"}
    assert_problem(
        settle(people.admin, refund_id, "GC-1", key="first"), 422, "reference", code="idempotency-key-reused"
    )
    assert rows.all("SELECT * FROM payments") + rows.all("SELECT * FROM refunds") == before


def test_one_transfer_returns_one_refund_of_its_method(people: People, rows: Rows) -> None:
    first, second = (refund_by_hand(people, pay_by_hand(people, number)) for number in (5, 6))
    by_bank = refund_by_hand(people, pay_by_hand(people, 7, method="bank_transfer"))
    assert settle(people.admin, first, "778-221").status_code == 200

    assert_problem(settle(people.admin, second, "778 221"), 409, code="transfer-already-used")
    assert settle(people.admin, by_bank, "778-221").status_code == 200  # a number of the bank's, not of GCash
    assert rows.count("refunds", "status = 'succeeded'") == 2
    assert settle(people.admin, second, "778-222").status_code == 200


def test_what_is_refused(people: People, rows: Rows) -> None:
    payment_id = pay_by_hand(people)
    refund_id = refund_by_hand(people, payment_id, amount=1000)
    by_sandbox = people.patient.pay(6).json["data"]["payment_id"]
    people.patient.confirm(by_sandbox)
    by_gateway = refund(people.admin, by_sandbox).json["data"]["refund"]["id"]

    for bad in ("", " GC", "G" * 256, "- -", "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 20, "a\nb"):
        assert_problem(settle(people.admin, refund_id, bad), 422, "reference")
    assert_problem(people.admin.post(f"/refunds/{refund_id}/settle"), 422, "reference")
    assert_problem(settle(people.admin, 999_999, "GC-1"), 404, code="refund-not-found")
    assert_problem(settle(people.admin, by_gateway, "GC-1"), 409, code="refund-not-to-be-sent")
    assert_problem(settle(people.admin, refund_id, "GC-1", expected_version=1), 409, code="version-conflict")
    stale = people.admin.post(f"/refunds/{refund_id}/settle", {"reference": "GC-1"}, headers={"If-Match": '"1"'})
    assert_problem(stale, 412, code="precondition-failed")
    for person in (people.patient, people.booking):
        assert_problem(settle(person, refund_id, "GC-1"), 403, code="forbidden")
    assert_problem(settle(key_of(people, people.admin, "payments:read"), refund_id, "GC-1"), 403, code="scope-missing")
    rows.execute("UPDATE payments SET is_disputed = :yes WHERE id = :id", yes=True, id=payment_id)
    assert_problem(settle(people.admin, refund_id, "GC-1"), 409, code="payment-disputed")
    rows.execute("UPDATE payments SET is_disputed = :no WHERE id = :id", no=False, id=payment_id)
    assert money_of(rows, payment_id) == ("completed", 100_000, 0)
    assert settle(key_of(people, people.admin, "refunds:write"), refund_id, "GC-1").status_code == 200


def test_twenty_at_once_send_it_once(people: People, rows: Rows) -> None:
    payment_id = pay_by_hand(people)
    same, different = (refund_by_hand(people, payment_id, amount=amount) for amount in (1000, 1500))

    def race(refund_id: int, references: list[str]) -> list[int]:
        gate = threading.Barrier(RACERS)

        def one(reference: str) -> int:
            gate.wait(PATIENCE_SECONDS)
            answer = settle(people.admin, refund_id, reference)
            while answer.status_code in (409, 503) and answer.json["retryable"]:
                answer = settle(people.admin, refund_id, reference)
            return answer.status_code

        with ThreadPoolExecutor(RACERS) as pool:
            return sorted(pool.map(one, references))

    assert race(same, ["GC-1"] * RACERS) == [200] * RACERS
    assert race(different, [f"GC-2-{number}" for number in range(RACERS)]) == [200] + [409] * (RACERS - 1)
    assert money_of(rows, payment_id) == ("partially_refunded", 0, 250_000)
    assert rows.count("payment_events", "event = 'refund.succeeded'") == 2
    assert rows.one("SELECT version FROM payments") == {"version": 5}


def test_staff_list_what_is_to_be_sent(people: People) -> None:
    by_gcash, by_bank = pay_by_hand(people, 5), pay_by_hand(people, 6, method="bank_transfer")
    first = refund_by_hand(people, by_gcash, amount=1000)
    second = refund_by_hand(people, by_bank)
    third = refund_by_hand(people, by_gcash, amount=2000)
    settle(people.admin, third, "GC-1")
    created = people.admin.get(f"/refunds/{second}").json["data"]["created_at"].replace("+", "%2B")

    for query, expected in {
        "": [third, second, first],
        "?per_page=1": [third, second, first],
        "?status=pending&by_hand=true": [second, first],
        "?status=succeeded": [third],
        "?by_hand=false": [],
        f"?payment_id={by_gcash}&per_page=1": [third, first],
        "?payment_method=bank_transfer": [second],
        "?gateway=manual&status=pending": [second, first],
        "?gateway=stripe": [],
        f"?requested_by={people.admin.id}": [third, second, first],
        f"?requested_by={people.patient.id}": [],
        f"?created_from={created}": [third, second],
        f"?created_to={created}": [first],
    }.items():
        assert walk(people.admin, f"/refunds{query}") == expected, query
    for query, name in {
        "state=pending": "state",
        "status=open": "status",
        "payment_id=x": "payment_id",
        "by_hand=maybe": "by_hand",
        "created_from=2026-01-31": "created_from",
        "cursor=x": "cursor",
        "per_page=101": "per_page",
    }.items():
        assert_problem(people.admin.get(f"/refunds?{query}"), 422, name)
    assert_problem(people.admin.get(f"/refunds/{first}?x=1"), 422, "x")
    assert_problem(people.admin.get("/refunds/999999"), 404, code="refund-not-found")
    for path in ("/refunds", f"/refunds/{first}"):
        assert_problem(people.patient.get(path), 403, code="forbidden")
        assert_problem(people.booking.get(path), 403, code="forbidden")


def test_by_command(people: People, database: Database, rows: Rows) -> None:
    payment_id = pay_by_hand(people)
    with commands_on(database.url) as commands:
        created = commands.ok("refunds", "create", payment_id, "--amount", "1500", "--yes")
        (to_be_sent,) = commands.json("refunds", "list", "--status", "pending", "--by-hand", "--method", "gcash")
        assert f"refunds settle {to_be_sent['id']} --reference" in created
        assert commands.json("refunds", "list", "--gateway", "stripe") == []

        assert "letter or a digit" in commands.refused("refunds", "settle", to_be_sent["id"], "--reference", "--")
        for _ in range(2):
            assert "succeeded" in commands.ok("refunds", "settle", to_be_sent["id"], "--reference", " GC-1 ")
        assert "another transfer" in commands.refused("refunds", "settle", to_be_sent["id"], "--reference", "GC-2")
        (shown,) = commands.json("refunds", "show", to_be_sent["id"])
        assert (shown["status"], shown["transfer"], shown["method"]) == ("succeeded", "GC-1", "gcash")

        # Staff cannot send the second one: its money is free again.
        given_up = refund_by_hand(people, payment_id)
        assert "failed" in commands.ok("refunds", "give-up", given_up, "--yes")
        commands.refused("refunds", "give-up", given_up, "--yes")
    assert money_of(rows, payment_id) == ("partially_refunded", 0, 150_000)
    assert_problem(settle(people.admin, given_up, "GC-3"), 409, code="refund-not-to-be-sent")
    assert refund(people.admin, payment_id).json["data"]["refund_amount"] == 3500
