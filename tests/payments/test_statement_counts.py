"""How many statements a request costs the database: each is a round trip, and one that creeps in is one for all."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Engine

from tests.support.client import ApiResponse
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.statements import statements_sent


@pytest.fixture
def count(engine: Engine) -> Callable[[Callable[[], ApiResponse]], int]:
    """How many statements a request sends that succeeds."""

    def count(ask: Callable[[], ApiResponse]) -> int:
        with statements_sent(engine) as sent:
            answer = ask()
        assert answer.status_code in (200, 201)
        return len([statement for statement, _ in sent if not statement.startswith("BEGIN")])

    return count


@pytest.fixture
def paid(people: People) -> int:
    """A payment with all that a payment comes to have; the worker that was asked has ids in hand and is ready."""
    payment_id: int = people.patient.pay(1, key="paid").json["data"]["payment_id"]
    assert people.patient.confirm(payment_id).status_code == 200
    for _ in range(2):
        assert (
            people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000, "allow_repeat": True}).status_code
            == 200
        )
    for consultation_id in range(2, 6):  # so that a list has more than one
        people.patient.pay(consultation_id)
    return payment_id


READS = (
    "/payments/{}",
    "/payments/{}/events",
    "/payments",
    "/payments?status=pending&per_page=2",
    "/payments?consultation_id=1",
    "/consultations",
    "/consultations/1",
    "/idempotency-keys/paid",
    "/me",
)


@pytest.mark.parametrize("path", READS)
def test_whatever_a_patient_reads_is_one_statement(
    people: People, paid: int, count: Callable[[Callable[[], ApiResponse]], int], path: str
) -> None:
    assert count(lambda: people.patient.get(path.format(paid))) == 1


@pytest.mark.parametrize("path", READS[:3])
def test_staff_read_with_one_more_that_asks_whether_they_are_still_staff(
    people: People, paid: int, count: Callable[[Callable[[], ApiResponse]], int], path: str
) -> None:
    assert count(lambda: people.admin.get(path.format(paid))) == 2


def test_a_next_page_is_one_statement(
    people: People, paid: int, count: Callable[[Callable[[], ApiResponse]], int]
) -> None:
    cursor = people.patient.get("/payments?per_page=2").json["meta"]["next_cursor"]
    assert count(lambda: people.patient.get(f"/payments?per_page=2&cursor={cursor}")) == 1
    assert paid


def test_the_methods_are_no_statement(people: People, count: Callable[[Callable[[], ApiResponse]], int]) -> None:
    assert count(lambda: people.patient.get("/payment-methods")) == 0


def test_a_payment_is_one_statement_on_postgresql_and_so_is_its_replay(
    people: People, paid: int, rows: Rows, count: Callable[[Callable[[], ApiResponse]], int]
) -> None:
    """SQLite, which has no network to cross, does the same in turn. Now and then one more asks for a block of ids."""
    creates = [count(partial(people.patient.pay, number, key=f"counted-{number}")) for number in (7, 8)]
    replays = [count(lambda: people.patient.pay(7, key="counted-7")) for _ in range(2)]
    assert (min(creates), min(replays)) == ((5, 3) if rows.is_sqlite else (1, 1))
    assert paid


def test_a_change_is_at_most_so_many_statements(
    people: People, rows: Rows, count: Callable[[Callable[[], ApiResponse]], int]
) -> None:
    """Judged ahead of the gateway, judged again in the transaction, written; and no more than that creeps in."""
    first, second = (people.patient.pay(number).json["data"]["payment_id"] for number in (1, 2))
    assert count(lambda: people.patient.confirm(first, key="confirm")) <= 11
    assert count(lambda: people.patient.confirm(first, key="confirm")) <= 3
    assert count(lambda: people.patient.post(f"/payments/{second}/cancel")) <= 14
    assert rows.count("payments", "version = 1") == 2
