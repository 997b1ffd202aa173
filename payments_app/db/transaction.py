"""Transactions and their retries: the only place that commits.

A function marked ``@write_transaction`` or ``@read_transaction`` receives the session as its first argument, and is one
transaction. It may run up to three times, each time on a fresh session. So it must read all rows on which it decides,
and keep nothing from an attempt that was rolled back.
"""

import functools
import logging
import random
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, object_session

from payments_app.db.base import Base
from payments_app.db.deadline import is_stopping
from payments_app.db.engine import STATEMENT_TIMEOUT_MS, current_engines
from payments_app.db.errors import ConnectionLost, RetryTransaction, classify_error, is_insufficient_privilege
from payments_app.errors import (
    NotReady,
)

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# The winner of a race has committed, so the second attempt nearly always decides; the third is for heavy contention.
ATTEMPTS = 3

# Seconds since its beginning for which a transaction that lost its connection is tried again. One statement that our
# deadline cut (6 s) leaves time to begin one more attempt, which finds out what it did; two do not, so that a silent
# database, or a silent pooler before it, costs a request at most two deadlines.
LOST_CONNECTION_SECONDS = STATEMENT_TIMEOUT_MS / 1_000 + 3

# The same if the process is stopping. A request that waited for a silent database until now ends, with 503.
LOST_CONNECTION_SECONDS_STOPPING = 2

# In a session's info: the functions to call after its commit.
_AFTER_COMMIT = "after commit"


def after_commit(row: Base, action: Callable[[], None]) -> None:
    """Call ``action``, which logs or counts a change, after the row's transaction commits; dropped on rollback."""
    session = object_session(row)
    assert session is not None  # noqa: S101  # for the type checker: a flushed row is in a session
    session.info.setdefault(_AFTER_COMMIT, []).append(action)


def write_transaction(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Run ``work`` in a transaction that commits when it returns and is rolled back when it raises.

    Raises:
        VersionConflict: every attempt found the row changed since it was read (409, retryable).
        DatabaseBusy: every attempt lost a deadlock, a serialization failure or the wait for a lock (503).
        DatabaseUnavailable: the database cannot be reached, does not answer, or is shutting down (503). The
            transaction may have committed, or may commit later: a request with the same key finds out.
        Conflict: a constraint of ``BROKEN_CONSTRAINTS`` was broken (409).
    """
    return _in_transaction(work, lambda: current_engines().writer)


def write_statement(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """``write_transaction`` for a single statement, which PostgreSQL commits by itself: it saves two round trips."""
    return _in_transaction(work, lambda: current_engines().one_statement)


def read_transaction(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Run ``work``, which only reads. On PostgreSQL each statement sees the database at a moment of its own."""
    return _in_transaction(work, lambda: current_engines().reader)


def _in_transaction(work: Callable[Concatenate[Session, P], R], engine: Callable[[], Engine]) -> Callable[P, R]:
    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        began = time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                # Committed objects stay readable: if they expired, the next access would open a new transaction.
                with Session(engine(), expire_on_commit=False) as session:
                    result = work(session, *args, **kwargs)
                    if session.in_transaction():  # a direct statement has committed by itself
                        session.commit()
                    for action in session.info.get(_AFTER_COMMIT, ()):
                        action()
                    return result
            except (SQLAlchemyError, RetryTransaction) as error:
                meaning = classify_error(error)
                if isinstance(meaning, NotReady) and not is_insufficient_privilege(error):
                    engine().dispose()  # SQLite's connections cache the schema without the index
                if not isinstance(meaning, RetryTransaction):
                    if meaning is error:  # "raise error from error" would be an endless chain of causes
                        raise
                    raise meaning from error
                if attempt == ATTEMPTS or (isinstance(meaning, ConnectionLost) and _has_lasted(began)):
                    raise meaning.when_all_are_lost from error
                log.info(
                    "%s lost a race (%s), attempt %d of %d", work.__name__, error.__class__.__name__, attempt, ATTEMPTS
                )
                # A random wait of up to 10 ms per attempt, so that the same requests do not collide again.
                time.sleep(random.uniform(0, 0.01 * attempt))  # noqa: S311  # no secret depends on it
        raise AssertionError("unreachable: the last attempt returned or raised")

    return run


def _has_lasted(began: float) -> bool:
    """Whether a transaction that lost its connection has lasted too long to be tried again."""
    limit = LOST_CONNECTION_SECONDS_STOPPING if is_stopping() else LOST_CONNECTION_SECONDS
    return time.monotonic() - began > limit
