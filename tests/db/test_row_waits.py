"""A row that stays locked: two requests of a process wait for it, the others are refused, and races are as ever."""

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from payments_app.db.row_waits import MOST_WAITING, RowWait
from payments_app.errors import LockTimeout
from tests.support.apps import app_with, engine_of
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.dialects import on_postgresql, on_sqlite
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.waiting import PATIENCE_SECONDS, wait_until

REQUESTS = 6

ROW = ("payments", 1)


def entered(*, stuck_after_seconds: float = 0) -> RowWait:
    wait = RowWait()
    wait.enter(ROW, stuck_after_seconds=stuck_after_seconds)
    return wait


def leave(*waits: RowWait, error: Exception | None = None) -> None:
    for wait in waits:
        wait.__exit__(None, error, None)


def test_of_those_that_waited_in_vain_the_last_two_stay() -> None:
    waits = [entered() for _ in range(4)]

    for wait in waits[:2]:
        with pytest.raises(LockTimeout):
            wait.require_place()
    for wait in waits[2:]:
        wait.require_place()

    with pytest.raises(LockTimeout):
        entered()
    leave(*waits)
    leave(entered())


def test_before_one_has_waited_in_vain_nobody_is_refused() -> None:
    leave(*[entered() for _ in range(20)])


def test_a_row_that_changes_hands_is_not_stuck() -> None:
    waits = [entered(stuck_after_seconds=PATIENCE_SECONDS) for _ in range(3)]

    for wait in waits:
        wait.require_place()

    leave(*waits)


def test_after_one_has_got_it_the_others_begin_anew() -> None:
    first, second, third = (entered() for _ in range(3))
    with pytest.raises(LockTimeout):
        third.require_place()
    leave(third, error=LockTimeout())
    with pytest.raises(LockTimeout):
        entered()

    leave(first)

    leave(*[entered() for _ in range(4)], second)


def lock_timeouts(answers: Sequence[ApiResponse]) -> int:
    """How many are the refusal of a request that is to be sent again."""
    for answer in answers:
        assert answer.status_code == 409, answer.text
        assert answer.json["type"].endswith("/lock-timeout")
        assert answer.json["retryable"] is True
        assert answer.headers["Retry-After"] == "1"
    return len(answers)


def refused(futures: Sequence[Future[ApiResponse]]) -> list[ApiResponse]:
    """The responses to all but two, which go on waiting."""
    wait_until(lambda: sum(future.done() for future in futures) == len(futures) - MOST_WAITING)
    return [future.result() for future in futures if future.done()]


Send = Callable[[People, int], ApiResponse]

# What waits for the row of a payment, under the strategy that locks nothing: the flush, or a lock that is always taken.
CHANGES: dict[str, Send] = {
    "confirm": lambda people, payment_id: people.patient.confirm(payment_id, "TXN-1"),
    "checkout": lambda people, payment_id: people.patient.post(f"/payments/{payment_id}/checkout"),
}


@on_postgresql
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("audited")
def test_two_wait_for_a_locked_payment_and_the_others_are_refused(
    engine: Engine, people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("payments_app.db.transaction.LOCK_PATIENCE_SECONDS", PATIENCE_SECONDS)
    payment_id = people.patient.pay().json["data"]["payment_id"]
    send = CHANGES[name]
    with ThreadPoolExecutor(REQUESTS) as pool, engine.connect() as holder:
        holder.execute(text("SELECT 1 FROM payments FOR UPDATE"))
        futures = [pool.submit(send, people, payment_id) for _ in range(REQUESTS)]

        assert lock_timeouts(refused(futures)) == REQUESTS - MOST_WAITING
        assert lock_timeouts([send(people, payment_id)]) == 1
        assert people.patient.get(f"/payments/{payment_id}").json["data"]["status"] == "pending"
        holder.rollback()
        answers = [future.result() for future in futures]

    assert [answer.status_code for answer in answers].count(200) == MOST_WAITING
    assert send(people, payment_id).status_code == 200
    assert rows.count("payment_events", "to_status = 'completed'") == (1 if name == "confirm" else 0)


@on_postgresql
@pytest.mark.usefixtures("audited")
def test_two_wait_for_a_locked_consultation_and_the_others_are_refused(
    engine: Engine, people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("payments_app.db.transaction.LOCK_PATIENCE_SECONDS", PATIENCE_SECONDS)
    with ThreadPoolExecutor(REQUESTS) as pool, engine.connect() as holder:
        holder.execute(text("SELECT 1 FROM consultations WHERE id = 5 FOR UPDATE"))
        futures = [pool.submit(people.patient.pay, 5, key="one-key") for _ in range(REQUESTS)]

        assert lock_timeouts(refused(futures)) == REQUESTS - MOST_WAITING
        assert people.patient.pay(6).status_code == 201  # another consultation's
        holder.rollback()
        answers = [future.result() for future in futures]

    assert [answer.status_code for answer in answers].count(201) == MOST_WAITING
    assert rows.count("payments", "consultation_id = 5") == 1


@on_sqlite
@pytest.mark.usefixtures("audited")
def test_on_sqlite_two_wait_for_the_write_lock(
    database: Database, people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("engine", "transaction"):
        monkeypatch.setattr(f"payments_app.db.{module}.SQLITE_BUSY_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("payments_app.db.transaction.LOCK_PATIENCE_SECONDS", PATIENCE_SECONDS)
    with app_with(database.url) as app, ThreadPoolExecutor(REQUESTS) as pool:
        patient = people.seen_by(app).patient
        assert patient.pay(20).status_code == 201  # the process has its ids now
        path = engine_of(app).url.database
        assert path is not None
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        futures = [pool.submit(patient.pay, number) for number in range(1, REQUESTS + 1)]

        assert lock_timeouts(refused(futures)) == REQUESTS - MOST_WAITING
        assert patient.get("/payments").status_code == 200
        holder.rollback()
        holder.close()
        answers = [future.result() for future in futures]

    assert [answer.status_code for answer in answers].count(201) == MOST_WAITING
    assert rows.count("payments") == 1 + MOST_WAITING
