"""Transactions, and what a broken constraint means. The only place that commits and retries.

A repository function marked ``@write_transaction`` or ``@read_transaction`` receives the session as its first
argument and is one transaction's worth of work. It may run up to three times, each time on a fresh session: so it
reads what it judges by, and keeps nothing from an attempt that was rolled back.
"""

import functools
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import CompoundSelect, DateTime, Dialect, Engine, MetaData, Select, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg as PsycopgDialect
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, object_session
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import BigInteger, Integer, TypeDecorator

from payments_app import metrics
from payments_app.engines import current_engines, run_alone
from payments_app.errors import (
    ActivePaymentExists,
    AppError,
    ConsultationHasPayments,
    DatabaseBusy,
    DatabaseUnavailable,
    NotReady,
    TransactionAlreadyUsed,
    VersionConflict,
)

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# A race is lost to a winner who has committed, so the second attempt nearly always decides; the third is for storms.
ATTEMPTS = 3

# SQLSTATEs of a race lost at the level of the transaction: serialization failure, deadlock, lock not available.
_LOST_RACE_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
# Class 08 is connection exceptions, 53 insufficient resources, 57 operator intervention (shutdown, cancel).
_UNAVAILABLE_SQLSTATE_CLASSES = frozenset({"08", "53", "57"})
# No unique constraint matches the ON CONFLICT target (42P10), no such table (42P01) or column (42703): the last line
# of defence is not there, or the migrations are not.
_NOT_READY_SQLSTATES = frozenset({"42P10", "42P01", "42703"})
# SQLite's primary result codes. Whatever is in neither set, a syntax error for one, is our bug.
_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)

# In a session's info: what is to be told once it has committed.
_TO_TELL = "to tell"

# Migrations name every constraint themselves; the convention is for what a model leaves unnamed.
NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}


class Base(DeclarativeBase):
    """The root of all models."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


# SQLite numbers rows by itself only for a column declared exactly INTEGER, which there holds 64 bits anyway.
BigId = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC: ``timestamptz`` on PostgreSQL; on SQLite, text of fixed width, which sorts as time does."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def one_of(column: str, values: Iterable[str]) -> str:
    """The text of a CHECK that a column holds one of a closed set of words."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class LostRace(Exception):
    """Somebody else was first: worth another attempt on a fresh session, which sees what they did."""

    def __init__(self, when_all_are_lost: AppError | None = None) -> None:
        super().__init__()
        self.when_all_are_lost = when_all_are_lost or DatabaseBusy()


class KeyTaken(LostRace):
    """The idempotency key was committed by a twin in the meantime."""


# What a broken constraint means. PostgreSQL names the constraint; SQLite only lists the columns, or, of a foreign
# key, nothing: so both are here, and a test compares them with the migrated schema.
BROKEN_CONSTRAINTS: tuple[tuple[str, str, type[Exception]], ...] = (
    ("uq_payments_active_consultation", "UNIQUE constraint failed: payments.consultation_id", ActivePaymentExists),
    ("pk_idempotency_keys", "UNIQUE constraint failed: idempotency_keys.user_id, idempotency_keys.key", KeyTaken),
    (
        "uq_payments_transaction",
        "UNIQUE constraint failed: payments.gateway, payments.payment_method, payments.transaction_id",
        TransactionAlreadyUsed,
    ),
    (
        "uq_payments_normalized_reference",
        "UNIQUE constraint failed: payments.gateway, payments.payment_method, payments.normalized_reference",
        TransactionAlreadyUsed,
    ),
    # The only parent row that the API ever changes is a consultation's patient.
    ("fk_payments_consultation_patient", "FOREIGN KEY constraint failed", ConsultationHasPayments),
)


class SingleStatement:
    """What is done so often that it is one statement, described in Core, and compiled once.

    Where it is a transaction by itself it goes to PostgreSQL without SQLAlchemy, else in the session's transaction.
    """

    def __init__(self, statement: Select[Any] | CompoundSelect[Any]) -> None:
        self._statement = statement

    def rows(self, session: Session, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Its rows, columns in the order in which the statement names them."""
        engine = session.get_bind()
        assert isinstance(engine, Engine)  # noqa: S101  # for the type checker: none of our sessions is bound to less
        if engine.get_execution_options()["begin"] is not None:
            rows: Sequence[Sequence[Any]] = session.execute(self._statement, values).all()
            return rows
        text, names = self._in_postgresqls_words
        return run_alone(engine, text, [values[name] for name in names])

    @cached_property
    def _in_postgresqls_words(self) -> tuple[str, Sequence[str]]:
        """With $1 for the first of the names, and so on."""
        compiled = self._statement.compile(dialect=PsycopgDialect(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]  # SQLAlchemy has no types for it
        assert isinstance(compiled, SQLCompiler)  # noqa: S101  # for the type checker: a statement is no DDL
        return compiled.string, compiled.positiontup or ()


def table_of(model: type[Base]) -> Table:
    """The table of a model, for Core statements that are to bypass the ORM."""
    table = model.__table__
    assert isinstance(table, Table)  # noqa: S101  # for the type checker: no model of ours maps a join
    return table


def insert_or_nothing(session: Session, model: type[Base]) -> Any:
    """An INSERT that can be told ``on_conflict_do_nothing``, which each database spells in a construct of its own."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    return dialect.insert(table_of(model))


def once_committed(row: Base, tell: Callable[[], None]) -> None:
    """Log or count what is being written once it is true: what was rolled back is told to nobody."""
    session = object_session(row)
    assert session is not None  # noqa: S101  # for the type checker: whatever is flushed is in a session
    session.info.setdefault(_TO_TELL, []).append(tell)


def write_transaction(work: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Run ``work`` in a transaction that commits when it returns and is rolled back when it raises.

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
    """Run ``work``, which only reads: one statement sees one moment, several may see several on PostgreSQL."""
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
            except (SQLAlchemyError, LostRace) as error:
                verdict = _judge(error)
                if isinstance(verdict, NotReady):
                    engine().dispose()  # SQLite's connections go on believing in a schema without the index
                if not isinstance(verdict, LostRace):
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


def _judge(error: Exception) -> Exception:
    """What an error of the database means to the caller; an unknown one is our bug and stays itself (500)."""
    if isinstance(error, LostRace):
        return error
    if isinstance(error, StaleDataError):
        metrics.VERSION_CONFLICTS.labels("race").inc()
        return LostRace(VersionConflict.lost_every_race())
    if isinstance(error, PoolTimeout):
        return DatabaseBusy()
    if isinstance(error, IntegrityError):
        return broken_constraint(error)
    if isinstance(error, DBAPIError):
        return _judge_dbapi_error(error)
    return error


def broken_constraint(error: IntegrityError) -> Exception:
    """The meaning of the constraint that an insert or update broke; the error itself where none is known."""
    diagnosis = getattr(error.orig, "diag", None)
    name = diagnosis.constraint_name if diagnosis is not None else None
    for constraint, sqlite_text, meaning in BROKEN_CONSTRAINTS:
        if name == constraint or (diagnosis is None and str(error.orig) == sqlite_text):
            return meaning()
    return error


def _judge_dbapi_error(error: DBAPIError) -> Exception:
    if isinstance(error.orig, sqlite3.Error):
        return _judge_sqlite_error(error, error.orig)
    state = getattr(error.orig, "sqlstate", None)
    if state in _LOST_RACE_SQLSTATES:
        return LostRace(DatabaseBusy())
    if state in _NOT_READY_SQLSTATES:
        return NotReady()
    if error.connection_invalidated:
        # The pool has thrown its connections away; whatever was sent either committed, and its key or version will
        # be found, or it did not. A database that restarted is so reached by the next attempt.
        return LostRace(DatabaseUnavailable())
    if state is None:  # no answer from a server at all
        return DatabaseUnavailable() if isinstance(error, OperationalError) else error
    return DatabaseUnavailable() if state[:2] in _UNAVAILABLE_SQLSTATE_CLASSES else error


def _judge_sqlite_error(error: DBAPIError, cause: sqlite3.Error) -> Exception:
    primary_code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if primary_code in _SQLITE_BUSY:
        return LostRace(DatabaseBusy())
    if primary_code in _SQLITE_UNAVAILABLE:
        return DatabaseUnavailable()
    text = str(cause)
    if "ON CONFLICT clause does not match" in text or text.startswith(("no such table", "no such column")):
        return NotReady()
    return error
