"""Disputes as staff see them: by the API, the command and the numbers for Prometheus."""

import json
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import Engine

from payments_app.payments import disputes
from tests.api.assertions import assert_problem
from tests.payments.test_lists import walk
from tests.support.people import People
from tests.support.raw_rows import AMOUNT_MINOR, MOMENT, Raw

STATUSES = ("inquiry", "inquiry_closed", "needs_response", "under_review", "won", "lost")


@pytest.fixture
def raw(engine: Engine) -> Raw:
    return Raw(engine)


@pytest.fixture
def made(people: People, raw: Raw) -> list[tuple[int, int]]:
    """Payment and dispute, oldest first: one of each status, on payments of two patients."""
    payments = [raw.payment(people.patient.id, 5, "completed"), raw.payment(people.other.id, 21, "completed")]
    return [
        (payments[number % 2], raw.dispute(payments[number % 2], status=status, due_at=MOMENT))
        for number, status in enumerate(STATUSES)
    ]


def test_they_are_listed_newest_first_by_pages(people: People, made: list[tuple[int, int]]) -> None:
    newest_first = [dispute_id for _, dispute_id in reversed(made)]

    assert walk(people.admin, "/disputes") == newest_first
    assert walk(people.admin, "/disputes?per_page=2") == newest_first
    assert people.admin.get("/disputes").json["meta"] == {"next_cursor": None, "per_page": 15}


def test_filters_by_status_and_payment(people: People, made: list[tuple[int, int]]) -> None:
    payment_id, first = made[0]
    (of_payment, *_) = [[dispute for payment, dispute in reversed(made) if payment == payment_id]]

    assert walk(people.admin, f"/disputes?payment_id={payment_id}&per_page=1") == of_payment
    assert walk(people.admin, "/disputes?status=inquiry") == [first]
    assert walk(people.admin, f"/disputes?status=lost&payment_id={payment_id}") == []
    assert walk(people.admin, "/disputes?payment_id=9007199254740991") == []


def test_a_dispute_is_shown_whole(people: People, raw: Raw) -> None:
    payment_id = raw.payment(people.patient.id, 5, "completed")
    dispute_id = raw.dispute(payment_id, due_at=MOMENT, reason=None, amount_minor=1_050)

    assert people.admin.get("/disputes").json["data"] == [
        {
            "id": dispute_id,
            "payment_id": payment_id,
            "gateway": "sandbox",
            "reference": f"dispute-{dispute_id}",
            "amount": 10.5,
            "currency": "PHP",
            "reason": None,
            "status": "needs_response",
            "due_at": "2026-01-31T09:30:00.000000Z",
            "created_at": "2026-01-31T09:30:00.000000Z",
            "updated_at": "2026-01-31T09:30:00.000000Z",
        }
    ]


def test_only_an_admin_sees_them(people: People, made: list[tuple[int, int]]) -> None:
    assert made
    for person in (people.patient, people.booking):
        assert_problem(person.get("/disputes"), 403, code="forbidden")
    assert_problem(people.anonymous().get("/api/v1/disputes"), 401)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        *((f"per_page={value}", "per_page") for value in ("", "0", "101", "five", "%D9%A5")),
        *((f"payment_id={value}", "payment_id") for value in ("", "0", "-1", "5.0", "9" * 30, "%00")),
        *((f"status={value}", "status") for value in ("", "LOST", "open", "lost,won", "%ff")),
        *((f"cursor={value}", "cursor") for value in ("", "5", "%00", "A" * 9_000)),
        ("payment=5", "payment"),
        ("status=won&status=lost", "status"),
    ],
    ids=lambda part: f"{part:.20}",
)
def test_a_filter_that_cannot_be_meant_is_named(people: People, query: str, name: str) -> None:
    assert_problem(people.admin.get(f"/disputes?{query}"), 422, name)


def test_a_cursor_of_another_list_is_refused(people: People) -> None:
    for consultation in (5, 6):
        people.patient.pay(consultation)
    cursor = people.admin.get("/payments?per_page=1").json["meta"]["next_cursor"]

    assert_problem(people.admin.get("/disputes", query_string={"cursor": cursor}), 422, "cursor")


@pytest.fixture
def command(app: Flask) -> Callable[..., list[str]]:
    def run(*options: str) -> list[str]:
        result = app.test_cli_runner(catch_exceptions=False).invoke(args=["disputes", "list", *options])
        assert result.exit_code == 0, result.output
        lines: list[str] = result.stdout.splitlines()
        return lines

    return run


def test_the_command_lists_them(command: Callable[..., list[str]], made: list[tuple[int, int]]) -> None:
    payment_id, first = made[0]
    newest_first = [dispute_id for _, dispute_id in reversed(made)]

    told = [json.loads(line) for line in command("--json")]

    assert [each["id"] for each in told] == newest_first
    assert told[-1] == {
        "id": first,
        "payment": payment_id,
        "amount": f"{AMOUNT_MINOR // 100}.00",
        "currency": "PHP",
        "status": "inquiry",
        "reason": "fraudulent",
        "answer_by": "2026-01-31T09:30:00.000000Z",
        "gateway": "sandbox",
        "reference": f"dispute-{first}",
        "created": "2026-01-31T09:30:00.000000Z",
    }
    assert len(command("--json", "--limit", "2")) == 2
    assert [json.loads(line)["status"] for line in command("--json", "--status", "lost")] == ["lost"]
    assert len(command("--json", "--payment", str(payment_id))) == 3
    assert str(first) in "\n".join(command())


def test_of_none_the_command_says_so(command: Callable[..., list[str]], people: People) -> None:
    assert people
    assert command("--json") == []
    assert "no disputes" in command()


def test_those_that_the_bank_has_not_decided_are_counted(app: Flask, made: list[tuple[int, int]]) -> None:
    assert made
    with app.app_context():
        assert disputes.count_open() == 3
