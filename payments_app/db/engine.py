"""Engines per database: timeouts, and transactions that begin when we say so, and how we say so."""

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import psycopg
from flask import Flask, current_app
from sqlalchemy import Engine, QueuePool, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from payments_app.observability import metrics

# Milliseconds. The database gives up first, before a gateway call (10 s), gunicorn and nginx (30 s and more) do.
STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 2_000

# Seconds that SQLite waits for its one write lock; three attempts stay below the same 10 s.
SQLITE_BUSY_TIMEOUT_SECONDS = 2

# Seconds to wait for a free connection before the answer is 503.
POOL_TIMEOUT_SECONDS = 5

# What a server, a database or a role can set for its clients and our statements depend on, as we need it. Every client
# may ask for these when it connects, which costs no round trip, and then ALTER DATABASE and ALTER ROLE do not count.
# Whether it is so is looked at all the same, with the rest that matters: health/catalogue.py.
MEANING_SETTINGS = {
    "DateStyle": "ISO",  # the driver reads no other
    "IntervalStyle": "postgres",  # the same
    "default_transaction_isolation": "read committed",  # a lost race is found out by reading what the winner committed
    "synchronous_commit": "on",  # what was acknowledged survives a crash
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "quote_all_identifiers": "off",  # the catalogue's expressions are compared as texts
    "exit_on_error": "off",  # a broken constraint is an answer, and not the end of the connection
}

# A connection to what has become a standby: 25006, read only transaction.
_DEMOTED_SQLSTATE = "25006"

# In a pooled connection's info: counted as in use.
_IN_USE = "in use"


@dataclass(frozen=True, slots=True)
class EngineViews:
    """Views of one engine and one pool; ``one_statement`` is for writes that are a transaction by themselves.

    They differ in the option ``begin``: the statement that a transaction begins with, or None where each statement is
    one by itself.
    """

    writer: Engine
    reader: Engine
    one_statement: Engine


def engine_options(database_url: str, pooler: str = "none") -> dict[str, Any]:
    """Options for ``create_engine``; what cannot be said there is done by ``init_app``."""
    if database_url.startswith("sqlite"):
        return {
            "connect_args": {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            "pool_timeout": POOL_TIMEOUT_SECONDS,
            "hide_parameters": True,
        }
    # A server behind a pooler has another client in each transaction. It remembers no statement of ours, and is told
    # of timeouts and other settings by whoever runs it: docs/deployment.md.
    behind_pooler = {"prepare_threshold": None} if pooler == "transaction" else {}
    of_the_url = make_url(database_url).normalized_query.get("options", ())
    return {
        "hide_parameters": True,  # amounts and transaction ids are nobody's business in a log
        # As many as a worker has threads (gunicorn.conf.py), so that no request waits for another's connection.
        "pool_size": 8,
        "max_overflow": 4,
        "pool_timeout": POOL_TIMEOUT_SECONDS,
        "connect_args": {
            # Transactions begin when we say so (_begin): a statement that is one by itself has nothing around it.
            "autocommit": True,
            # Seconds; libpq's own default is to wait for ever.
            "connect_timeout": 3,
            # The driver decodes by it, and a pooler keeps it for each client; the database's own may be LATIN1.
            "client_encoding": "utf8",
            # What is said here replaces what the URL says, and of two words on one thing the last one counts.
            "options": " ".join([*of_the_url, *([] if behind_pooler else _our_options())]),
            **behind_pooler,
            # Milliseconds and seconds: a network that swallows everything is noticed before a client gives up.
            "tcp_user_timeout": 2 * STATEMENT_TIMEOUT_MS,
            "keepalives_idle": 10,
            "keepalives_interval": 3,
            "keepalives_count": 3,
        },
    }


def _our_options() -> list[str]:
    """As libpq reads them: a blank in a value has a backslash before it.

    Put together when an engine is made, so that a test may shorten the timeouts.
    """
    # The others are not looked at: other time zones and limits are as good, and policies are looked at themselves.
    ours = {
        **MEANING_SETTINGS,
        "row_security": "off",  # a policy that hides rows from us is an error, and not fewer rows
        "TimeZone": "UTC",
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        # A worker that was stopped in mid-transaction must not keep a consultation locked for ever.
        "idle_in_transaction_session_timeout": str(2 * STATEMENT_TIMEOUT_MS),
        "idle_session_timeout": "0",  # connections wait in the pool for as long as there is nothing to do
    }
    return ["-c {}={}".format(name, value.replace(" ", r"\ ")) for name, value in ours.items()]


def init_app(app: Flask) -> None:
    """Make the engine behave: transactions that begin when we say so, and how we say so."""
    with app.app_context():
        engine: Engine = app.extensions["sqlalchemy"].engine
    if engine.dialect.name == "sqlite":
        # Writers take the write lock at once: a lock upgraded in mid-transaction fails however long it waits.
        engine.update_execution_options(begin="BEGIN IMMEDIATE")
        reader, one_statement = engine.execution_options(begin="BEGIN"), engine
    else:
        # A single statement needs no BEGIN and COMMIT round trips on PostgreSQL.
        engine.update_execution_options(begin="BEGIN")
        reader = one_statement = engine.execution_options(begin=None)
    app.extensions["database"] = EngineViews(writer=engine, reader=reader, one_statement=one_statement)
    event.listen(engine, "begin", _begin)
    _count_connections(engine)
    os.register_at_fork(after_in_child=partial(_leave_to_parent, weakref.ref(engine)))
    if engine.dialect.name == "postgresql":
        event.listen(engine, "handle_error", _leave_a_demoted_server)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite_connection)


def current_engines() -> EngineViews:
    engines: EngineViews = current_app.extensions["database"]
    return engines


def execute_directly(engine: Engine, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The rows of a statement in PostgreSQL's own words ($1 ...), which commits itself, on a connection of the pool.

    Past SQLAlchemy's own way of executing, and psycopg's of translating, which take longer than Flask's of answering.

    Raises:
        DBAPIError: as SQLAlchemy would.
    """
    try:
        pooled = engine.raw_connection()
    except psycopg.Error as error:
        raise _as_sqlalchemy_says(engine, error, is_broken=False) from error
    driver = cast("psycopg.Connection[tuple[Any, ...]]", pooled.driver_connection)
    try:
        # Whoever borrowed it with an isolation level of their own gave it back with the driver's BEGIN switched on:
        # what was answered would then be rolled back.
        if not driver.autocommit:
            driver.autocommit = True
        return psycopg.RawCursor(driver).execute(statement.encode(), values).fetchall()
    except psycopg.Error as error:
        is_broken = driver.closed or error.sqlstate == _DEMOTED_SQLSTATE
        if is_broken:
            pooled.invalidate(error)
            engine.dispose()  # the others lead nowhere either
        raise _as_sqlalchemy_says(engine, error, is_broken=is_broken) from error
    finally:
        pooled.close()


def _as_sqlalchemy_says(engine: Engine, error: psycopg.Error, *, is_broken: bool) -> BaseException:
    return DBAPIError.instance(
        None,
        None,
        error,
        psycopg.Error,
        hide_parameters=True,
        connection_invalidated=is_broken,
        dialect=engine.dialect,
    )


def describe_driver_error(error: BaseException) -> str:
    """An error of the database in one line, for operators: its class, SQLSTATE and message; no SQL, and no row."""
    cause = getattr(error, "orig", None) or error
    diagnosis, state = getattr(cause, "diag", None), getattr(cause, "sqlstate", None)
    message = (diagnosis and diagnosis.message_primary) or next(iter(str(cause).splitlines()), "")
    return f"{type(cause).__name__}{f' {state}' if state else ''}: {message}"


def _count_connections(engine: Engine) -> None:
    """Counted where it happens: who shows the numbers is one process, and the others' pools are theirs."""
    pool = engine.pool
    if isinstance(pool, QueuePool):  # of no other kind can it be said how many it may open
        most = pool.size() + pool._max_overflow  # noqa: SLF001  # it says its size, and not by how much it may exceed it
        event.listen(engine, "connect", lambda *_: metrics.DB_CONNECTIONS_MAX.set(most))
    event.listen(engine, "checkout", _count_checkout)
    event.listen(engine, "checkin", _count_checkin)


def _count_checkout(_connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
    record.info[_IN_USE] = True
    metrics.DB_CONNECTIONS_IN_USE.inc()


def _count_checkin(_connection: Any, record: ConnectionPoolEntry) -> None:
    """Where none could be opened, there is a checkin without a checkout."""
    if record.info.pop(_IN_USE, False):
        metrics.DB_CONNECTIONS_IN_USE.dec()


def _leave_to_parent(engine: "weakref.ref[Engine]") -> None:
    """After a fork: two processes that talk on one connection read each other's answers. (redis-py sees to its own.)"""
    if (ours := engine()) is not None:
        ours.dispose(close=False)


def _prepare_sqlite_connection(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late: _begin sends it
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=FULL")  # a committed payment survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _leave_a_demoted_server(context: Any) -> None:
    """After a failover, old connections lead to a server that only reads: treat them as broken, and connect anew."""
    if getattr(context.original_exception, "sqlstate", None) == _DEMOTED_SQLSTATE:
        context.is_disconnect = True


def lift_statement_timeout() -> None:
    """For commands, which may take longer than a request: for all connections that are opened from now on."""
    if current_app.config["SETTINGS"].database_pooler != "none":
        return  # the connection that is so relieved would be somebody else's in the next moment
    engine = current_engines().writer
    if engine.dialect.name == "postgresql":
        event.listen(engine, "connect", _lift_statement_timeout)


def _lift_statement_timeout(connection: Any, _record: Any) -> None:
    connection.execute(no_time_limit())
    connection.commit()


def no_time_limit(*, for_one_transaction: bool = False) -> str:
    """The statement for what may take longer than a request. PostgreSQL before 17 has no transaction_timeout."""
    return (
        f"SELECT set_config(name, '0', {for_one_transaction}) FROM pg_settings"  # noqa: S608  # nosec B608  # a boolean
        " WHERE name IN ('statement_timeout', 'transaction_timeout')"
    )


def _begin(connection: Any) -> None:
    options = connection.get_execution_options()
    # A migration that builds an index asks for AUTOCOMMIT, and has the driver itself begin what comes after.
    is_to_have_none = options["begin"] is None or options.get("isolation_level") == "AUTOCOMMIT"
    has_one = getattr(connection.connection.driver_connection, "autocommit", True) is False
    if not is_to_have_none and not has_one:
        connection.exec_driver_sql(options["begin"])
