"""Revoking a link waits for those transactions that the link let in, and those that come later see it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from tests.api.assertions import assert_problem
from tests.support.client import ApiResponse
from tests.support.dialects import on_postgresql
from tests.support.held_locks import held, wait_for_waiting
from tests.support.links import Payer, payer_of
from tests.support.people import People
from tests.support.rows import Rows

# SQLite has one writer at a time: none can come in between.
pytestmark = on_postgresql

DISABLE = "UPDATE users SET disabled_at = now() WHERE id = :id"


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], ApiResponse]], Future[ApiResponse]]]:
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


Beside = Callable[[Callable[[], ApiResponse]], "Future[ApiResponse]"]
LOCK_CONSULTATION = "SELECT 1 FROM consultations WHERE id = 5 FOR UPDATE"
LOCK_INVOICE = "SELECT 1 FROM invoices FOR UPDATE"
LOCK_PAYMENT = "SELECT 1 FROM payments FOR UPDATE"


def end(people: People, payer: Payer, rows: Rows, ending: str) -> None:
    if ending == "revoked":
        assert payer.revoke().status_code == 204
    else:
        rows.execute(DISABLE, id=people.patient.id)


@pytest.mark.parametrize("ending", ["revoked", "disabled"])
def test_a_payment_that_waits_is_not_made_once_the_link_is_revoked(
    people: People, rows: Rows, engine: Engine, beside: Beside, ending: str
) -> None:
    """Its statement began before, and sees by its lock what has changed since."""
    payer = payer_of(people)
    with held(engine, LOCK_CONSULTATION):
        paid = beside(lambda: payer.pay(5))
        wait_for_waiting(rows, 1)
        end(people, payer, rows, ending)

    assert_problem(paid.result(), 401, code="not-authenticated")
    assert rows.count("payments") == rows.count("idempotency_keys") == 0


@pytest.mark.parametrize("verb", ["cancel", "checkout"])
def test_a_change_that_waits_is_not_made_once_the_link_is_revoked(
    people: People, rows: Rows, engine: Engine, beside: Beside, verb: str
) -> None:
    payer = payer_of(people)
    payment_id = payer.pay(5).json["data"]["payment_id"]
    with held(engine, LOCK_PAYMENT):
        changed = beside(lambda: payer.post(f"/payments/{payment_id}/{verb}"))
        wait_for_waiting(rows, 1)
        assert payer.revoke().status_code == 204

    assert_problem(changed.result(), 401, code="not-authenticated")
    assert rows.one("SELECT status, version FROM payments") == {"status": "pending", "version": 0}
    assert rows.count("idempotency_keys") == 1


def test_revoking_waits_for_a_payment_that_the_link_has_let_in(
    people: People, rows: Rows, engine: Engine, beside: Beside
) -> None:
    payer = payer_of(people)
    first = people.patient.pay(5).json["data"]["payment_id"]
    assert people.patient.post(f"/payments/{first}/cancel").status_code == 200
    # It holds the place that the new payment is to have, and gives it up in the end.
    with held(engine, "UPDATE payments SET status = 'pending'"):
        paid = beside(lambda: payer.pay(5))
        wait_for_waiting(rows, 1)
        revoked = beside(payer.revoke)
        wait_for_waiting(rows, 2)
        assert not revoked.done()

    assert paid.result().status_code == 201
    assert revoked.result().status_code == 204
    assert rows.count("payments") == 2


def test_revoking_waits_for_a_change_that_the_link_has_let_in(
    people: People, rows: Rows, engine: Engine, beside: Beside
) -> None:
    payer = payer_of(people)
    payment_id = payer.pay(5).json["data"]["payment_id"]
    # The change voids the invoice last, when it has looked at the link.
    with held(engine, LOCK_INVOICE):
        cancelled = beside(lambda: payer.post(f"/payments/{payment_id}/cancel", headers={"Idempotency-Key": "c"}))
        wait_for_waiting(rows, 1)
        revoked = beside(payer.revoke)
        wait_for_waiting(rows, 2)
        assert not revoked.done()

    assert cancelled.result().status_code == 200
    assert revoked.result().status_code == 204
    assert rows.one("SELECT status FROM payments")["status"] == "cancelled"
