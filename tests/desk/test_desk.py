"""What the front desk reads: searches, filters, queues, and what it costs the database."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import Engine

from tests.api.assertions import assert_problem
from tests.support.apps import app_with
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.people import People, Person
from tests.support.raw_rows import AMOUNT_MINOR, MOMENT, Raw
from tests.support.rows import Rows
from tests.support.statements import statements_sent


@pytest.fixture
def raw(engine: Engine) -> Raw:
    return Raw(engine)


@pytest.fixture
def found(people: People) -> Callable[..., list[int]]:
    """The payments that a search finds, in their order."""

    def find(**query: Any) -> list[int]:
        return walk(people.admin, query)

    return find


def walk(person: Person, query: dict[str, Any]) -> list[int]:
    """The ids of all pages."""
    seen: list[int] = []
    path: str | None = f"/desk/payments?{urlencode(query)}"
    while path is not None:
        answer = person.get(path)
        assert answer.status_code == 200, answer.json
        seen += [row["payment"]["id"] for row in answer.json["data"]]
        link = answer.headers.get("Link")
        path = None if link is None else link.partition(">")[0].removeprefix("</api/v1")
    return seen


@pytest.fixture
def rosa(raw: Raw) -> int:
    """The id of a patient with two consultations, 501 (BK-77) and 502 (bk-78)."""
    user_id = raw.user(name="Rosa María Lim", email="rosa.lim@clinic.example", normalized_email=None)
    raw.insert("consultations", **consultation(501, user_id, reference="BK-77", description="Follow-up, Dr Cruz"))
    raw.insert("consultations", **consultation(502, user_id, reference="bk-78", starts_at=MOMENT))
    return user_id


def consultation(number: int, user_id: int, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "patient_id": user_id,
        "currency": "PHP",
        "created_at": MOMENT,
        "updated_at": MOMENT,
        **more,
    }


BY_HAND = {"gateway": "manual", "payment_method": "bank_transfer"}


def test_a_row_says_who_and_what_for(people: People, raw: Raw, rosa: int) -> None:
    paid = raw.payment(
        rosa,
        502,
        "completed",
        refund_reserved_minor=10_050,
        refunded_minor=20_000,
        needs_review=True,
    )
    raw.refund(paid)
    refund_id = raw.refund(paid, status="pending", amount_minor=10_050)
    raw.dispute(paid, status="won", due_at=MOMENT)
    raw.dispute(paid, status="inquiry", due_at=MOMENT + timedelta(days=2))
    due_first = raw.dispute(paid, due_at=MOMENT + timedelta(days=1))
    raw.dispute(paid, due_at=None)

    (row,) = people.admin.get("/desk/payments").json["data"]

    assert row.pop("payment") == {
        name: value
        for name, value in people.admin.get(f"/payments/{paid}").json["data"].items()
        if name not in ("invoices", "tax_records", "refunds")
    }
    assert row == {
        "patient": {"name": "Rosa María Lim", "email": "rosa.lim@clinic.example"},
        "consultation": {
            "id": 502,
            "reference": "bk-78",
            "description": None,
            "starts_at": "2026-01-31T09:30:00.000000Z",
        },
        "refundable_amount": (AMOUNT_MINOR - 30_050) / 100,
        "by_hand": False,
        "dispute": {"id": due_first, "status": "needs_response", "due_at": "2026-02-01T09:30:00.000000Z"},
        "open_refund": {"id": refund_id, "status": "pending", "amount": 100.5, "by_hand": False},
    }


def test_a_disputed_payment_has_nothing_to_refund_and_a_pending_one_neither(
    people: People, raw: Raw, rosa: int
) -> None:
    raw.payment(rosa, 501, "completed", is_disputed=True)
    raw.payment(rosa, 502, **BY_HAND)

    rows = people.admin.get("/desk/payments").json["data"]

    assert [(row["refundable_amount"], row["dispute"], row["open_refund"]) for row in rows] == [(0, None, None)] * 2
    assert [row["by_hand"] for row in rows] == [True, False]


def test_what_is_searched(raw: Raw, people: People, rosa: int, found: Callable[..., list[int]]) -> None:
    first = raw.payment(rosa, 501, "completed", transaction_id="pi_3Nabc", created_at=MOMENT)
    second = raw.payment(
        rosa,
        502,
        "completed",
        **BY_HAND,
        transaction_id="GC-0091-77Ab",
        normalized_reference="gc009177ab",
        created_at=MOMENT + timedelta(hours=1),
    )
    other = raw.payment(people.patient.id, 5, created_at=MOMENT + timedelta(hours=2))
    raw.payment(people.patient.id, 6, "cancelled", deleted_at=MOMENT)
    both = [second, first]

    for patient in ("rosa", "LIM", "sa mar", "Rosa.Lim@", "clinic.example", "ROSA MARíA"):
        assert found(search=patient) == both, patient
    for reference in ("BK-77", "bk-77"):
        assert found(search=reference) == [first], reference
    for reference in ("bk-78", "BK-78"):
        assert found(search=reference) == [second], reference
    assert found(search="BK-") == found(search="bk-7") == both
    for transaction in ("pi_3Nabc", "pi_3N"):
        assert found(search=transaction) == [first], transaction
    for transaction in ("GC-0091", "GC 0091 77ab", "gc009177AB", "GC\u20110091\u201177AB"):
        assert found(search=transaction) == [second], transaction
    assert found(search="502") == [second]
    assert found(search=str(other)) == found(payment_id=other) == [other]
    # No wildcards, and nothing that is not there.
    for nothing in ("%", "_", "\\", "rosa%lim", "pi_3_", "k-77", "501x", "9" * 19, "9" * 40, "---", "' OR 1=1 --"):
        assert found(search=nothing) == [], nothing


def test_every_filter_applies_with_every_other(
    raw: Raw, people: People, rosa: int, found: Callable[..., list[int]]
) -> None:
    paid = raw.payment(rosa, 501, "completed")
    raw.payment(rosa, 502, created_at=MOMENT + timedelta(days=1))
    other = raw.payment(people.patient.id, 5, "completed", payment_method="gcash")

    assert found(status="completed") == [other, paid]
    assert found(status="completed", search="rosa") == [paid]
    assert found(search="rosa", day="2026-01-31") == [paid]
    assert found(payment_method="gcash", day="2026-01-31") == [other]
    assert found(status="completed", search="rosa", payment_method="gcash") == []
    assert found(queue="to_be_confirmed") == found(queue="needs_review", search="rosa") == []


def test_queues_hold_what_waits_for_staff_and_are_counted(
    people: People, raw: Raw, rosa: int, found: Callable[..., list[int]]
) -> None:
    numbers = iter(range(1, 21))

    def payment(status: str = "completed", **more: Any) -> int:
        return raw.payment(people.patient.id, next(numbers), status, **more)

    wanted = {
        "to_be_confirmed": [payment("pending", **BY_HAND), raw.payment(rosa, 501, **BY_HAND)],
        "to_be_sent": [payment(**BY_HAND)],
        "needs_review": [payment(needs_review=True)],
        "disputed": [payment() for _ in range(3)],
        "refund_unknown": [payment()],
        "to_be_approved": [payment()],
    }
    for _ in range(2):  # a payment is counted once
        raw.refund(wanted["to_be_sent"][0], status="pending", gateway="manual", by_hand=True, amount_minor=1)
    raw.refund(wanted["to_be_approved"][0], status="requested", amount_minor=1)
    raw.refund(wanted["refund_unknown"][0], status="unknown", amount_minor=1)
    for payment_id, status in zip(wanted["disputed"], ("inquiry", "needs_response", "under_review"), strict=True):
        raw.dispute(payment_id, status=status)
    # None of them waits for staff.
    payment("pending")
    payment("expired", **BY_HAND)
    raw.refund(payment(), status="pending", amount_minor=1)
    raw.refund(payment(**BY_HAND), gateway="manual", by_hand=True, transfer_reference="SENT-1")
    raw.refund(payment(**BY_HAND), status="pending", gateway="manual", amount_minor=1, made_elsewhere=True)
    for status in ("won", "lost", "inquiry_closed"):
        raw.dispute(payment(), status=status)

    for queue, payments in wanted.items():
        assert found(queue=queue) == payments[::-1], queue
    assert people.admin.get("/desk/queues").json["data"] == {queue: len(payments) for queue, payments in wanted.items()}
    assert found(queue="to_be_confirmed", search="rosa") == wanted["to_be_confirmed"][1:]


def test_a_day_is_one_of_the_clinics(database: Database, people: People, raw: Raw, rosa: int) -> None:
    """The clocks of Manila are 8 hours ahead; those of New York spring forward in the night of 8 March."""
    bounds = {
        "Asia/Manila": ("2026-03-14", "2026-03-13T16:00:00", "2026-03-14T15:59:59.999999"),
        "America/New_York": ("2026-03-08", "2026-03-08T05:00:00", "2026-03-09T03:59:59.999999"),
    }
    for zone, (day, *moments) in bounds.items():
        first, last = (MOMENT.fromisoformat(f"{moment}+00:00") for moment in moments)
        moved = timedelta(microseconds=1)
        ids = [raw.payment(rosa, 501, "cancelled", created_at=at) for at in (first - moved, first, last, last + moved)]
        with app_with(database.url, CLINIC_TIMEZONE=zone) as app:
            assert walk(people.seen_by(app).admin, {"day": day}) == [ids[2], ids[1]], zone


@pytest.mark.parametrize("query", [{}, {"search": "rosa"}, {"search": "501"}, {"queue": "disputed", "search": "BK-77"}])
def test_pages_miss_nothing_and_cost_two_statements_each_at_any_depth(
    people: People, raw: Raw, rosa: int, engine: Engine, query: dict[str, Any]
) -> None:
    """One of them asks whether they are still staff."""
    ids = [raw.payment(rosa, 501, "failed", created_at=MOMENT + timedelta(seconds=n // 2)) for n in range(7)]
    for payment_id in ids:
        raw.dispute(payment_id)

    assert walk(people.admin, {**query, "per_page": 2}) == ids[::-1]

    path = f"/desk/payments?{urlencode({**query, 'per_page': 2})}"
    for _ in range(4):
        with statements_sent(engine) as sent:
            answer = people.admin.get(path)
        assert len([statement for statement, _ in sent if not statement.startswith("BEGIN")]) == 2
        cursor = answer.json["meta"]["next_cursor"]
        path = f"/desk/payments?{urlencode({**query, 'per_page': 2, 'cursor': cursor})}"


def test_the_lengths_of_all_queues_are_one_statement(people: People, engine: Engine) -> None:
    people.admin.get("/desk/queues")
    with statements_sent(engine) as sent:
        assert people.admin.get("/desk/queues").status_code == 200

    assert len([statement for statement, _ in sent if not statement.startswith("BEGIN")]) == 2


def test_only_staff_by_login_may_see_it(people: People) -> None:
    for path in ("/desk/payments", "/desk/queues"):
        for person in (people.patient, people.booking):
            assert_problem(person.get(path), 403, code="forbidden")
        assert_problem(people.anonymous().get(f"/api/v1{path}"), 401)
        assert_problem(people.admin.get(f"{path}?x=1"), 422, "x")


def test_what_is_searched_is_in_no_log(people: People, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="payments_app")
    assert people.admin.get("/desk/payments?search=rosa.lim").status_code == 200

    assert "/api/v1/desk/payments" in caplog.text
    assert "rosa" not in caplog.text


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "search": ["", " rosa", "x" * 256, "a\x00b"],
        "day": ["", "today", "2026-02-30", "20260131", "2026-1-1", "0001-01-01", "9999-12-31", "2026-01-31T00:00"],
        "queue": ["", "all", "To_Be_Sent"],
        "status": ["", "paid"],
        "payment_id": ["0", "x", str(2**63)],
        "per_page": ["0", "101"],
        "cursor": ["x", ""],
    }.items(),
)
def test_a_bad_filter_is_named(people: People, name: str, values: list[str]) -> None:
    for value in values:
        assert_problem(people.admin.get(f"/desk/payments?{urlencode({name: value})}"), 422, name)


def test_a_cursor_belongs_to_its_search(people: People, raw: Raw, rosa: int) -> None:
    for _ in range(2):
        raw.payment(rosa, 501, "failed")
    cursor = people.admin.get("/desk/payments?per_page=1&search=rosa").json["meta"]["next_cursor"]

    assert_problem(people.admin.get(f"/desk/payments?search=lim&cursor={cursor}"), 422, "cursor")


# The end of a review.


def resolve(person: Person, payment_id: int, **body: Any) -> ApiResponse:
    return person.post(f"/payments/{payment_id}/resolve-review", body)


def test_staff_end_a_review_that_they_have_looked_at(people: People, raw: Raw, rows: Rows) -> None:
    payment_id: int = people.patient.pay(5).json["data"]["payment_id"]
    people.patient.confirm(payment_id)
    as_it_was = people.admin.get(f"/payments/{payment_id}").json["data"]

    untouched = resolve(people.admin, payment_id)
    raw.update("payments", payment_id, needs_review=True, review_held=True)
    for person in (people.patient, people.booking):
        assert_problem(resolve(person, payment_id), 403)
    assert_problem(resolve(people.admin, payment_id, expected_version=0), 409, code="version-conflict")
    ended = resolve(people.admin, payment_id, expected_version=as_it_was["version"])
    again = resolve(people.admin, payment_id, expected_version=as_it_was["version"])

    assert untouched.json["data"]["payment"] == {name: as_it_was[name] for name in untouched.json["data"]["payment"]}
    assert ended.status_code == again.status_code == 200
    assert ended.json == again.json
    assert ended.json["message"] == "Review ended"
    assert ended.json["data"]["payment"]["needs_review"] is False
    assert ended.headers["ETag"] == f'"{as_it_was["version"] + 1}"'
    events = rows.all("SELECT event, version, actor FROM payment_events WHERE event = 'payment.reviewed'")
    assert events == [
        {"event": "payment.reviewed", "version": as_it_was["version"] + 1, "actor": f"admin:{people.admin.id}"}
    ]


def test_a_review_of_money_that_may_not_stay_cannot_be_ended(people: People, raw: Raw) -> None:
    payment_id: int = people.patient.pay(5).json["data"]["payment_id"]
    people.patient.post(f"/payments/{payment_id}/cancel")
    raw.update("payments", payment_id, received_minor=AMOUNT_MINOR, transaction_id="LATE", needs_review=True)

    assert_problem(resolve(people.admin, payment_id), 409, code="invalid-transition")
    assert_problem(resolve(people.admin, 999_999), 404)
