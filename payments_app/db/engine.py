"""The engine of each database: timeouts, connection settings, and explicit control of when a transaction begins."""

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import psycopg
from flask import Flask, current_app
from sqlalchemy import Connection, Engine, QueuePool, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from config import WORKER_THREADS
from payments_app.db.deadline import MARGIN_SECONDS, Connector, DeadlineConnection
from payments_app.observability import metrics

# Milliseconds. The database gives up before a gateway call (10 s), and before gunicorn and nginx (30 s and more).
STATEMENT_TIMEOUT_MS = 5_000

# Milliseconds of one wait for a lock: far longer than a race takes. After it db/row_waits.py decides which requests go
# on waiting, and db/transaction.py for how long.
LOCK_TIMEOUT_MS = 500

# Seconds of one wait for SQLite's one write lock. Longer than a wait for a row: all writers take turns, and its waits
# have no order.
SQLITE_BUSY_TIMEOUT_SECONDS = 2

# How a transaction that writes begins on SQLite: with the write lock.
BEGIN_WRITE = "BEGIN IMMEDIATE"

# Seconds to wait for a free connection before the response is 503.
POOL_TIMEOUT_SECONDS = 5

# Seconds to wait for a new connection to each server of the URL. The frozen primary is often the first of them, and a
# frozen standby the second, so two attempts must end within 5 s. It is libpq's minimum; a healthy server needs
# milliseconds, and 1 s more if the network loses the first packet.
CONNECT_TIMEOUT_SECONDS = 2

# Settings that change the meaning of our statements, with the values that they need. A server, a database or a role may
# set others. A client sends these when it connects, without a round trip; behind a pooler, with the BEGIN of each
# transaction. Then ALTER DATABASE and ALTER ROLE have no effect. health/schema_checks.py checks the result.
MEANING_SETTINGS = {
    "DateStyle": "ISO",  # the driver reads no other
    "IntervalStyle": "postgres",  # the same
    "default_transaction_isolation": "read committed",  # the loser of a race must see the rows of the winner
    "synchronous_commit": "on",  # an acknowledged commit survives a crash
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "quote_all_identifiers": "off",  # the schema checks compare the catalogue's expressions as text
    "exit_on_error": "off",  # a broken constraint must not end the connection
}

# Each transaction names its isolation, besides the session's default: it costs nothing.
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"

# SQLSTATE 25006, read only transaction: the server has become a standby.
_DEMOTED_SQLSTATE = "25006"

# In a pooled connection's info: True while it is counted as in use.
_IN_USE = "in use"


class LendingPool(QueuePool):
    """A pool that also lends a connection without SQLAlchemy's wrapper, which takes longer than all else that the pool
    does. The wrapper rolls back when it is closed, so a loan is for single statements only.
    """

    __module__ = QueuePool.__module__  # SQLAlchemy names a pool's logger by it: its messages stay SQLAlchemy's

    def lend(self) -> ConnectionPoolEntry:
        """A pooled connection, opened if necessary. ``take_back`` must follow."""
        loan = self._do_get()
        try:
            loan.get_connection()  # type: ignore[attr-defined]  # the pool's own class of entries has it
        except BaseException:
            self._do_return_conn(loan)
            raise
        metrics.DB_CONNECTIONS_IN_USE.inc()
        return loan

    def take_back(self, loan: ConnectionPoolEntry, *, is_usable: bool) -> None:
        metrics.DB_CONNECTIONS_IN_USE.dec()
        try:
            if not is_usable:
                loan.invalidate()
        finally:
            self._do_return_conn(loan)


@dataclass(frozen=True, slots=True)
class EngineViews:
    """Views of one engine with one pool. ``one_statement`` is for writes that are a single statement.

    They differ in the option ``begin``: the statement that starts a transaction, or None if each statement is a
    transaction by itself. ``connector`` opens PostgreSQL's connections; None for SQLite.
    """

    writer: Engine
    reader: Engine
    one_statement: Engine
    connector: Connector | None = None


def engine_options(database_url: str, pooler: str = "none") -> dict[str, Any]:
    """Options for ``create_engine``; ``init_app`` does the rest."""
    if database_url.startswith("sqlite"):
        return {
            "connect_args": {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            "pool_timeout": POOL_TIMEOUT_SECONDS,
            "hide_parameters": True,
        }
    # Behind a pooler each transaction may use another server connection. So statements are not prepared, and no setting
    # is sent when connecting: each transaction sends them (_begin_behind_pooler).
    behind_pooler = {"prepare_threshold": None} if pooler == "transaction" else {}
    url_options = make_url(database_url).normalized_query.get("options", ())
    return {
        "hide_parameters": True,  # amounts and transaction ids do not belong in logs
        # As many as a worker has threads, so that no request waits for another's connection.
        "poolclass": LendingPool,
        "pool_size": WORKER_THREADS,
        "max_overflow": 4,
        "pool_timeout": POOL_TIMEOUT_SECONDS,
        "connect_args": {
            # _begin starts transactions. In autocommit mode a single statement needs no BEGIN and COMMIT.
            "autocommit": True,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,  # libpq's default is to wait forever
            # The driver decodes by it, and a pooler keeps it for each client; the database's own may be LATIN1.
            "client_encoding": "utf8",
            # This replaces the URL's options, so they are repeated first. Of two equal options the last one counts.
            "options": " ".join([*url_options, *([] if behind_pooler else _startup_options())]),
            **behind_pooler,
            # Milliseconds, then seconds: a network that drops all packets is noticed before the client gives up.
            "tcp_user_timeout": 2 * STATEMENT_TIMEOUT_MS,
            "keepalives_idle": 10,
            "keepalives_interval": 3,
            "keepalives_count": 3,
        },
    }


def _startup_options() -> list[str]:
    """The settings as libpq options; a blank in a value is escaped with a backslash."""
    # Idle connections stay in the pool. (Behind a pooler they are the pooler's.)
    options = {**_session_settings(), "idle_session_timeout": "0"}
    return ["-c {}={}".format(name, value.replace(" ", r"\ ")) for name, value in options.items()]


def _begin_behind_pooler() -> str:
    """Begins a transaction with our settings, which end with it; all in one round trip."""
    return "; ".join([_BEGIN, *(f"SET LOCAL {name} = '{value}'" for name, value in _session_settings().items())])


def _session_settings() -> dict[str, str]:
    """Name and value of each setting. Computed when an engine is made, so that a test can shorten the timeouts."""
    # /readyz does not check the settings that are added here: others are as good, and it checks policies themselves.
    return {
        **MEANING_SETTINGS,
        "row_security": "off",  # a policy that hides rows must cause an error, not fewer rows
        "TimeZone": "UTC",
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        # A worker that is suspended in a transaction must not keep a consultation locked forever.
        "idle_in_transaction_session_timeout": str(2 * STATEMENT_TIMEOUT_MS),
    }


def init_app(app: Flask) -> None:
    """Make the engine's views, and register its event listeners."""
    with app.app_context():
        engine: Engine = app.extensions["sqlalchemy"].engine
    connector = None
    if engine.dialect.name == "sqlite":
        # Writers take the write lock at once: upgrading a lock inside a transaction fails, however long it waits.
        views = _views(engine, writer=BEGIN_WRITE, reader="BEGIN", one_statement=BEGIN_WRITE)
    elif app.config["SETTINGS"].database_pooler != "none":
        # A single statement too is a transaction with our settings: the server connection has those of the role.
        begin = _begin_behind_pooler()
        views = _views(engine, writer=begin, reader=begin, one_statement=begin)
    else:
        # A single statement needs no BEGIN and COMMIT round trips on PostgreSQL.
        views = _views(engine, writer=_BEGIN, reader=None, one_statement=None)
    if engine.dialect.name == "postgresql":
        connector = Connector(STATEMENT_TIMEOUT_MS / 1_000 + MARGIN_SECONDS)
        event.listen(engine, "do_connect", connector)
        event.listen(engine, "handle_error", _disconnect_from_demoted_server)
    app.extensions["database"] = replace(views, connector=connector)
    event.listen(engine, "begin", _begin)
    _count_connections(engine)
    os.register_at_fork(after_in_child=partial(_drop_inherited_connections, weakref.ref(engine)))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite_connection)


def _views(engine: Engine, *, writer: str, reader: str | None, one_statement: str | None) -> EngineViews:
    """Three views of one engine, by the statement that begins their transactions."""
    engine.update_execution_options(begin=writer)
    return EngineViews(
        writer=engine,
        reader=engine.execution_options(begin=reader),
        one_statement=engine.execution_options(begin=one_statement),
    )


def current_engines() -> EngineViews:
    engines: EngineViews = current_app.extensions["database"]
    return engines


def execute_directly(
    engine: Engine, statement: bytes, values: Sequence[Any], *, planned_by_values: bool = False
) -> list[tuple[Any, ...]]:
    """Execute a statement with PostgreSQL's placeholders ($1 ...) on a pooled connection, in autocommit mode.

    It bypasses SQLAlchemy's execution, its wrapper of a pooled connection, and psycopg's translation of placeholders,
    because they take longer than the rest of a request (docs/performance.md).

    Raises:
        DBAPIError: for the same errors as SQLAlchemy's own execution.
    """
    pool = cast("LendingPool", engine.pool)
    try:
        loan = pool.lend()
    except psycopg.Error as error:
        raise _to_sqlalchemy_error(engine, error, is_broken=False) from error
    driver = cast("DeadlineConnection", loan.driver_connection)
    is_usable = False
    try:
        # A user of the pool that set an isolation level returned the connection with autocommit off: the pool would
        # then roll this statement back after the response.
        if not driver.autocommit:
            driver.autocommit = True
        rows = _execute(driver, statement, values, planned_by_values=planned_by_values).fetchall()
        is_usable = True
    except psycopg.Error as error:
        is_usable = _is_usable_after(error, driver)
        if not is_usable:
            engine.dispose()  # the pool's other connections are broken too
        raise _to_sqlalchemy_error(engine, error, is_broken=not is_usable) from error
    finally:
        pool.take_back(loan, is_usable=is_usable)
    return rows


def execute_on(
    connection: Connection, statement: bytes, values: Sequence[Any] | None = None, *, planned_by_values: bool = False
) -> psycopg.RawCursor[tuple[Any, ...]]:
    """``execute_directly`` in the transaction of a connection, for PostgreSQL; returns the cursor with the result.

    Raises:
        DBAPIError: as ``execute_directly``.
    """
    driver = cast("DeadlineConnection", connection.connection.driver_connection)
    try:
        return _execute(driver, statement, values, planned_by_values=planned_by_values)
    except psycopg.Error as error:
        is_usable = _is_usable_after(error, driver)
        if not is_usable:
            connection.invalidate(error)
            connection.engine.dispose()  # as above
        raise _to_sqlalchemy_error(connection.engine, error, is_broken=not is_usable) from error


def _execute(
    driver: "DeadlineConnection", statement: bytes, values: Sequence[Any] | None, *, planned_by_values: bool
) -> psycopg.RawCursor[tuple[Any, ...]]:
    # Not prepared, it is planned by its values. None: the driver prepares what comes again and again.
    return driver.raw_cursor.execute(statement, values, prepare=False if planned_by_values else None)


def _is_usable_after(error: psycopg.Error, driver: psycopg.Connection[Any]) -> bool:
    return not driver.closed and error.sqlstate != _DEMOTED_SQLSTATE


def _to_sqlalchemy_error(engine: Engine, error: psycopg.Error, *, is_broken: bool) -> BaseException:
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
    """A database error in one line, for operators: class, SQLSTATE and message, without SQL and row values."""
    cause = getattr(error, "orig", None) or error
    diagnosis, state = getattr(cause, "diag", None), getattr(cause, "sqlstate", None)
    message = (diagnosis and diagnosis.message_primary) or next(iter(str(cause).splitlines()), "")
    return f"{type(cause).__name__}{f' {state}' if state else ''}: {message}"


def _count_connections(engine: Engine) -> None:
    """Count connections by pool events: the process that serves /metrics cannot see the pools of other processes."""
    pool = engine.pool
    if isinstance(pool, QueuePool):  # other pools have no limit
        maximum = pool.size() + pool._max_overflow  # noqa: SLF001  # the overflow has no public attribute
        event.listen(engine, "connect", lambda *_: metrics.DB_CONNECTIONS_MAX.set(maximum))
    event.listen(engine, "checkout", _count_checkout)
    event.listen(engine, "checkin", _count_checkin)


def _count_checkout(_connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
    record.info[_IN_USE] = True
    metrics.DB_CONNECTIONS_IN_USE.inc()


def _count_checkin(_connection: Any, record: ConnectionPoolEntry) -> None:
    """A connection that could not be opened is checked in without a checkout: do not count it."""
    if record.info.pop(_IN_USE, False):
        metrics.DB_CONNECTIONS_IN_USE.dec()


def _drop_inherited_connections(engine: "weakref.ref[Engine]") -> None:
    """After a fork: two processes on one connection would read each other's results. (redis-py does this by itself.)"""
    if (inherited := engine()) is not None:
        inherited.dispose(close=False)


def _prepare_sqlite_connection(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver sends BEGIN too late: _begin sends it
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=FULL")  # a committed payment survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _disconnect_from_demoted_server(context: Any) -> None:
    """After a failover, old connections lead to a read-only server: treat them as broken, so the pool reconnects."""
    if getattr(context.original_exception, "sqlstate", None) == _DEMOTED_SQLSTATE:
        context.is_disconnect = True


def lift_time_limits() -> None:
    """Remove the time limits of statements from connections opened from now on: commands may take longer than requests.

    The limits of locks stay.
    """
    lift_deadline()
    engines = current_engines()
    if engines.connector is None:
        return
    if current_app.config["SETTINGS"].database_pooler == "none":
        event.listen(engines.writer, "connect", _lift_statement_timeout)
        return
    # For each transaction, because another client uses the server connection next.
    begin = f"{_begin_behind_pooler()}; {no_time_limit(for_one_transaction=True)}"
    views = _views(engines.writer, writer=begin, reader=begin, one_statement=begin)
    current_app.extensions["database"] = replace(views, connector=engines.connector)


def lift_deadline() -> None:
    """Remove our own deadline from connections opened from now on."""
    connector = current_engines().connector
    if connector is not None:
        connector.deadline_seconds = None


def _lift_statement_timeout(connection: Any, _record: Any) -> None:
    connection.execute(no_time_limit())
    connection.commit()


def no_time_limit(*, for_one_transaction: bool = False) -> str:
    """The SQL that removes the time limits. It queries pg_settings: PostgreSQL before 17 has no transaction_timeout."""
    return (
        f"SELECT set_config(name, '0', {for_one_transaction}) FROM pg_settings"  # noqa: S608  # nosec B608  # a boolean
        " WHERE name IN ('statement_timeout', 'transaction_timeout')"
    )


def _begin(connection: Any) -> None:
    options = connection.get_execution_options()
    # A migration that builds an index uses AUTOCOMMIT, and after it the driver itself begins transactions.
    is_to_have_none = options["begin"] is None or options.get("isolation_level") == "AUTOCOMMIT"
    has_one = getattr(connection.connection.driver_connection, "autocommit", True) is False
    if not is_to_have_none and not has_one:
        if connection.dialect.name == "postgresql":
            execute_on(connection, options["begin"].encode())
        else:
            connection.exec_driver_sql(options["begin"])
