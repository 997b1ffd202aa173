"""The filters of GET /payments: each shows what it says, and none of it to who may not see it."""

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.api.assertions import assert_problem
from tests.payments.test_lists import walk
from tests.support.people import People, Person
from tests.support.rows import Rows

MIDNIGHT, NOON = "2026-11-28T00:00:00Z", "2026-11-28T12:00:00Z"


@pytest.fixture
def payments(people: People, rows: Rows) -> dict[str, int]:
    """Four payments of an hour each, from 2026-11-28 10:00 UTC on."""
    made = {
        "paid": people.patient.pay(1).json["data"]["payment_id"],
        "by hand": people.patient.pay(2, payment_method="bank_transfer").json["data"]["payment_id"],
        "in review": people.patient.pay(3).json["data"]["payment_id"],
        "other's": people.other.pay(21).json["data"]["payment_id"],
    }
    people.patient.confirm(made["paid"], "TXN-1")
    people.admin.confirm(made["by hand"], "Bank 7")
    sql = {"sqlite": "'2026-11-28 {}:00:00.000000'", "postgresql": "timestamptz '2026-11-28 {}:00:00Z'"}
    dialect = rows._engine.dialect.name
    for hour, payment_id in enumerate(made.values(), start=10):
        moment = sql[dialect].format(hour)
        rows.execute(f"UPDATE payments SET created_at = {moment} WHERE id = :id", id=payment_id)
        done = sql[dialect].format(hour + 1)
        rows.execute(
            f"UPDATE payments SET completed_at = {done} WHERE id = :id AND completed_at IS NOT NULL", id=payment_id
        )
    rows.execute("UPDATE payments SET needs_review = :yes WHERE id = :id", yes=True, id=made["in review"])
    return made


def shown(person: Person, **filters: Any) -> list[int]:
    """All ids, by pages of one."""
    return walk(person, f"/payments?{urlencode({'per_page': 1, **filters})}")


def test_each_filter_shows_what_it_says(people: People, payments: dict[str, int]) -> None:
    paid, by_hand, in_review, others = payments.values()
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({"created_from": "2026-11-28T11:00:00Z"}, [others, in_review, by_hand]),
        ({"created_to": "2026-11-28T11:00:00Z"}, [paid]),  # half-open: the payment of that moment is not in it
        ({"created_from": "2026-11-28T19:00:00+08:00", "created_to": NOON}, [by_hand]),
        ({"completed_from": MIDNIGHT}, [by_hand, paid]),
        ({"completed_from": "2026-11-28T11:00:00Z", "completed_to": "2026-11-28T12:00Z"}, [paid]),
        ({"completed_to": "2026-11-28T11:00:00Z"}, []),
        ({"payment_method": "bank_transfer"}, [by_hand]),
        ({"payment_method": "cash"}, []),
        ({"needs_review": "true"}, [in_review]),
        ({"needs_review": "false"}, [others, by_hand, paid]),
        ({"transaction_id": "TXN-1"}, [paid]),
        ({"transaction_id": "txn-1"}, []),
        ({"user_id": people.other.id}, [others]),
        ({"patient_email": "OTHER@example.com"}, [others]),
        ({"patient_email": "nobody@example.com"}, []),
        ({"patient_email": "patient@example.com", "user_id": people.other.id}, []),
        ({"patient_email": "patient@example.com", "status": "completed", "payment_method": "stripe"}, [paid]),
    ]

    for filters, expected in cases:
        assert shown(people.admin, **filters) == expected, filters


def test_they_narrow_what_the_caller_may_see_and_widen_nothing(people: People, payments: dict[str, int]) -> None:
    paid, by_hand, in_review, others = payments.values()
    filters = {"created_from": MIDNIGHT, "needs_review": "false"}

    assert shown(people.patient, **filters) == [by_hand, paid]
    assert shown(people.other, **filters) == [others]
    assert shown(people.booking, **filters) == []
    assert shown(people.other, transaction_id="TXN-1") == []
    assert shown(people.patient, needs_review="true") == [in_review]


@pytest.mark.parametrize("who", ["patient", "booking"])
def test_to_look_for_a_patient_is_for_admins(people: People, who: str) -> None:
    person: Person = getattr(people, who)

    for query in (f"user_id={person.id}", "patient_email=patient@example.com"):
        assert_problem(person.get(f"/payments?{query}"), 403, code="forbidden")
    assert_problem(person.get("/payments?user_id=x"), 422, "user_id")


def test_a_cursor_is_good_for_its_filters_alone(people: People, payments: dict[str, int]) -> None:
    """Whoever changes a filter between two pages would miss payments and not know it."""
    query = {"per_page": 1, "created_from": "2026-11-28T08:00:00+08:00", "needs_review": "false"}
    cursor = people.admin.get(f"/payments?{urlencode(query)}").json["meta"]["next_cursor"]

    same = people.admin.get(f"/payments?{urlencode({**query, 'per_page': 2, 'cursor': cursor})}")
    assert [payment["id"] for payment in same.json["data"]] == [payments["by hand"], payments["paid"]]
    # The same moment in other words.
    in_utc = {**query, "created_from": MIDNIGHT, "cursor": cursor}
    assert people.admin.get(f"/payments?{urlencode(in_utc)}").status_code == 200
    for other in ({"needs_review": "true"}, {"created_from": NOON}, {"status": "pending"}):
        answer = people.admin.get(f"/payments?{urlencode({**query, **other, 'cursor': cursor})}")
        assert_problem(answer, 422, "cursor")
    assert_problem(people.admin.get(f"/payments?cursor={cursor}"), 422, "cursor")


@pytest.mark.usefixtures("payments")
def test_the_link_to_the_next_page_repeats_the_filters_as_they_came(people: People) -> None:
    query = urlencode({"per_page": 1, "created_from": "2026-11-28T08:00:00+08:00"})

    link = people.admin.get(f"/payments?{query}").headers["Link"]

    assert "created_from=2026-11-28T08%3A00%3A00%2B08%3A00" in link
