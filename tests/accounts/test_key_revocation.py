"""Revoking an API key waits for those transactions that the key let in, and those that come later see it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from payments_app.accounts import api_keys
from tests.api.assertions import assert_problem
from tests.support.api_keys import Program, key_of
from tests.support.client import ApiResponse
from tests.support.dialects import on_postgresql
from tests.support.held_locks import held, wait_for_waiting
from tests.support.people import People
from tests.support.rows import Rows

# SQLite has one writer at a time: none can come in between.
pytestmark = on_postgresql


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def program(people: People) -> Program:
    program = key_of(people, people.admin)
    assert program.get("/me").status_code == 200  # which notes the hour of its first use
    return program


def confirming(people: People, program: Program) -> Callable[[], ApiResponse]:
    payment_id = people.patient.pay(5, payment_method="gcash").json["data"]["payment_id"]
    return lambda: program.confirm(payment_id, key="c")


def revoke(people: People, program: Program) -> None:
    with people.app.app_context():
        api_keys.revoke(program.key_id, actor="tests")


def test_a_change_that_waits_is_not_made_once_the_key_is_revoked(
    people: People, rows: Rows, engine: Engine, pool: ThreadPoolExecutor, program: Program
) -> None:
    confirm = confirming(people, program)
    with held(engine, "SELECT 1 FROM payments FOR UPDATE"):
        confirmed = pool.submit(confirm)
        wait_for_waiting(rows, 1)
        revoke(people, program)

    assert_problem(confirmed.result(), 401, code="not-authenticated")
    assert rows.one("SELECT status, version FROM payments") == {"status": "pending", "version": 0}


def test_revoking_waits_for_a_change_that_the_key_has_let_in(
    people: People, rows: Rows, engine: Engine, pool: ThreadPoolExecutor, program: Program
) -> None:
    confirm = confirming(people, program)
    # The change writes the invoice last, when it has looked at the key.
    with held(engine, "SELECT 1 FROM invoices FOR UPDATE"):
        confirmed: Future[ApiResponse] = pool.submit(confirm)
        wait_for_waiting(rows, 1)
        revoked = pool.submit(revoke, people, program)
        wait_for_waiting(rows, 2)
        assert not revoked.done()

    assert confirmed.result().status_code == 200
    revoked.result()
    assert_problem(program.get("/me"), 401)
