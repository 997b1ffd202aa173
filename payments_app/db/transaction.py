"""Transactions and their retries: the only place that commits.

A repository function marked ``@write_transaction`` or ``@read_transaction`` receives the session as its first
argument and is one transaction's worth of work. It may run up to three times, each time on a fresh session: so it
reads what it judges by, and keeps nothing from an attempt that was rolled back.
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
from payments_app.db.engine import current_engines
from payments_app.db.errors import RetryTransaction, classify_error
from payments_app.errors import (
    NotReady,
)

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# A race is lost to a winner who has committed, so the second attempt nearly always decides; the third is for storms.
ATTEMPTS = 3

# In a session's info: what is to be told once it has committed.
_TO_TELL = "to tell"


def after_commit(row: Base, tell: Callable[[], None]) -> None:
    """Log or count a change after its transaction has committed; dropped on rollback."""
    session = object_session(row)
    assert session is not None  # noqa: S101  # for the type checker: whatever is flushed is in a session
    session.info.setdefault(_TO_TELL, []).append(tell)


def write_transaction(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Run ``execute`` in a transaction that commits when it returns and is rolled back when it raises.

    Raises:
        VersionConflict: every attempt found the row changed since it was read (409, retryable).
        DatabaseBusy: every attempt lost a deadlock, a serialization failure or the wait for a lock (503).
        DatabaseUnavailable: the database cannot be reached, or is shutting down (503).
        Conflict: a constraint of ``BROKEN_CONSTRAINTS`` was broken (409).
    """
    return _in_transaction(work, lambda: current_engines().writer)


def write_statement(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """The same for work that writes by a single statement, which PostgreSQL commits by itself: two round trips less."""
    return _in_transaction(work, lambda: current_engines().one_statement)


def read_transaction(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Run ``execute``, which only reads: one statement sees one moment, several may see several on PostgreSQL."""
    return _in_transaction(work, lambda: current_engines().reader)


def _in_transaction(work: Callable[Concatenate[Session, P], R], engine: Callable[[], Engine]) -> Callable[P, R]:
    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                # Committed objects stay readable: expiring them would open a new transaction at the next look.
                with Session(engine(), expire_on_commit=False) as session:
                    result = work(session, *args, **kwargs)
                    if session.in_transaction():  # a statement that went alone has left nothing to commit
                        session.commit()
                    for tell in session.info.get(_TO_TELL, ()):
                        tell()
                    return result
            except (SQLAlchemyError, RetryTransaction) as error:
                verdict = classify_error(error)
                if isinstance(verdict, NotReady):
                    engine().dispose()  # SQLite's connections go on believing in a schema without the index
                if not isinstance(verdict, RetryTransaction):
                    if verdict is error:  # "from" itself, whoever follows its causes would never come to an end
                        raise
                    raise verdict from error
                if attempt == ATTEMPTS:
                    raise verdict.when_all_are_lost from error
                log.info(
                    "%s lost a race (%s), attempt %d of %d", work.__name__, error.__class__.__name__, attempt, ATTEMPTS
                )
                # Milliseconds, unequal ones: so that racers who met once do not meet again.
                time.sleep(random.uniform(0, 0.01 * attempt))  # noqa: S311  # no secret depends on it
        raise AssertionError("unreachable: the last attempt returned or raised")

    return run
