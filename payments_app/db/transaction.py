"""Transactions and their retries: the only place that commits.

A function marked ``@write_transaction`` or ``@read_transaction`` receives the session as its first argument, and is one
transaction. It may run several times, each time on a fresh session. So it must read all rows on which it decides, and
keep nothing from an attempt that was rolled back.
"""

import functools
import logging
import random
import time
from collections.abc import Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar

from flask import current_app
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, object_session

from payments_app.db.base import Base
from payments_app.db.deadline import is_stopping
from payments_app.db.engine import BEGIN_WRITE, SQLITE_BUSY_TIMEOUT_SECONDS, STATEMENT_TIMEOUT_MS, current_engines
from payments_app.db.errors import (
    ConnectionLost,
    LockNotGranted,
    RetryTransaction,
    classify_error,
    is_insufficient_privilege,
)
from payments_app.db.row_waits import ROW_WAIT, RowWait
from payments_app.errors import (
    NotReady,
)

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Read = TypeVar("Read")

# However many attempts TRANSACTION_ATTEMPTS allows, those after the third begin within so many seconds: a request must
# not take longer than for a lock.
TIMELESS_ATTEMPTS = 3
LATER_ATTEMPTS_SECONDS = 6

# Seconds that a transaction waits for locks in all, in several waits (LOCK_TIMEOUT_MS). Longer than a migration waits
# for a table (3 s), for other statements queue behind it; shorter than a gateway call.
LOCK_PATIENCE_SECONDS = 6

# Seconds since its beginning for which a transaction that lost its connection is tried again. One statement that our
# deadline cut (6 s) leaves time to begin one more attempt, which finds out what it did; two do not, so that a silent
# database, or a silent pooler before it, costs a request at most two deadlines.
LOST_CONNECTION_SECONDS = STATEMENT_TIMEOUT_MS / 1_000 + 3

# The same if the process is stopping. A request that waited for a silent database until now ends, with 503.
LOST_CONNECTION_SECONDS_STOPPING = 2

# In a session's info: the functions to call after its commit.
_AFTER_COMMIT = "after commit"


class FirstAttempt(Generic[Read]):
    """What was read before a transaction, for its first attempt alone.

    That attempt changes what was read. If it is rolled back, it has lost a race, and the next one reads again.
    """

    __slots__ = ("_read",)

    def __init__(self, read: Read) -> None:
        self._read: Read | None = read

    def take(self) -> Read | None:
        """What was read; None from the second attempt on."""
        read, self._read = self._read, None
        return read


def after_commit(row: Base, action: Callable[[], None]) -> None:
    """Call ``action``, which logs or counts a change, after the row's transaction commits; dropped on rollback."""
    session = object_session(row)
    assert session is not None  # noqa: S101  # for the type checker: a flushed row is in a session
    session.info.setdefault(_AFTER_COMMIT, []).append(action)


def write_transaction(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Run ``work`` in a transaction that commits when it returns and is rolled back when it raises.

    Raises:
        VersionConflict: every attempt found the row changed since it was read (409, retryable).
        LockTimeout: a row stays locked, and enough requests of this process wait for it (409, retryable).
        DatabaseBusy: every attempt lost a deadlock or a serialization failure, or a lock was not granted in time (503).
        DatabaseUnavailable: the database cannot be reached, does not answer, or is shutting down (503). The
            transaction may have committed, or may commit later: a request with the same key finds out.
        Conflict: a constraint of ``BROKEN_CONSTRAINTS`` was broken (409).
    """
    return _in_transaction(work, lambda: current_engines().writer)


def impatient_write_transaction(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """``write_transaction`` that gives up after one wait for a lock: for work that another process does as well.

    Raises:
        DatabaseBusy: a lock was not granted in one wait; or as ``write_transaction`` (503).
        LockTimeout: on SQLite, its one lock stays taken, and enough requests of this process wait for it (409).
    """
    return _in_transaction(work, lambda: current_engines().writer, waits_once=True)


def write_statement(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """``write_transaction`` for a single statement, which PostgreSQL commits by itself: it saves two round trips."""
    return _in_transaction(work, lambda: current_engines().one_statement)


def read_transaction(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Run ``work``, which only reads. On PostgreSQL each statement sees the database at a moment of its own."""
    return _in_transaction(work, lambda: current_engines().reader)


def _in_transaction(
    work: Callable[Concatenate[Session, P], R], engine: Callable[[], Engine], *, waits_once: bool = False
) -> Callable[P, R]:
    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        began = time.monotonic()
        with RowWait() as wait:
            repetitions: _Repetitions | None = None  # most transactions need none
            while True:
                try:
                    return _attempt(engine(), wait, lambda session: work(session, *args, **kwargs))
                except (SQLAlchemyError, RetryTransaction) as error:
                    meaning = classify_error(error)
                    if isinstance(meaning, NotReady) and not is_insufficient_privilege(error):
                        engine().dispose()  # SQLite's connections cache the schema without the index
                    if not isinstance(meaning, RetryTransaction):
                        if meaning is error:  # "raise error from error" would be an endless chain of causes
                            raise
                        raise meaning from error
                    if waits_once and isinstance(meaning, LockNotGranted):
                        raise meaning.when_all_are_lost from error
                    repetitions = repetitions or _Repetitions(work.__name__, wait, began)
                    repetitions.require_another(meaning, error)

    return run


def _attempt(view: Engine, wait: RowWait, work: Callable[[Session], R]) -> R:
    if view.get_execution_options()["begin"] == BEGIN_WRITE:  # SQLite has one lock for all its writers
        wait.enter(("every table", 0), stuck_after_seconds=SQLITE_BUSY_TIMEOUT_SECONDS)
    # Committed objects stay readable: if they expired, the next access would open a new transaction.
    session = Session(view, expire_on_commit=False, info={ROW_WAIT: wait})
    try:
        result = work(session)
        if session.in_transaction():  # a direct statement has committed by itself
            session.commit()
        for action in session.info.get(_AFTER_COMMIT, ()):
            action()
        return result
    finally:
        if session.in_transaction() or len(session.identity_map):  # nor is there anything to close after one
            session.close()


class _Repetitions:
    """Decides how often and how long one transaction is tried."""

    __slots__ = ("_attempts", "_began", "_name", "_races_lost", "_started", "_wait")

    def __init__(self, name: str, wait: RowWait, began: float) -> None:
        self._name, self._wait, self._began = name, wait, began
        self._attempts: int = current_app.config["SETTINGS"].transaction_attempts
        # The first attempt has failed by now; one wait more or less does not matter.
        self._started, self._races_lost = time.monotonic(), 0

    def require_another(self, meaning: RetryTransaction, error: Exception) -> None:
        """Pause before the next attempt.

        Raises:
            LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
            AppError: ``meaning.when_all_are_lost``, if that was the last attempt.
        """
        if isinstance(meaning, LockNotGranted):
            self._wait.require_place()
            waited_seconds = time.monotonic() - self._started
            is_last = waited_seconds >= LOCK_PATIENCE_SECONDS
            log.info("%s waits for a lock, %.1f s so far", self._name, waited_seconds)
        else:
            self._races_lost += 1
            is_last = self._races_lost >= self._attempts or self._has_lasted(meaning)
            cause = error.__class__.__name__
            log.info("%s lost a race (%s), attempt %d of %d", self._name, cause, self._races_lost, self._attempts)
        if is_last:
            raise meaning.when_all_are_lost from error
        # A random wait of up to 10 ms per race, so that the same requests do not collide again.
        time.sleep(random.uniform(0, 0.01 * max(self._races_lost, 1)))  # noqa: S311  # no secret depends on it

    def _has_lasted(self, meaning: RetryTransaction) -> bool:
        """Whether the transaction has lasted too long to be tried again."""
        if isinstance(meaning, ConnectionLost):
            limit = LOST_CONNECTION_SECONDS_STOPPING if is_stopping() else LOST_CONNECTION_SECONDS
        elif self._races_lost >= TIMELESS_ATTEMPTS:
            limit = LATER_ATTEMPTS_SECONDS
        else:
            return False
        return time.monotonic() - self._began > limit
