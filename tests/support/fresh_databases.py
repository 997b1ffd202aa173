"""Separate databases, for tests that change the schema: copies of a migrated one, because copying is quick."""

import atexit
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url

from tests.support import databases
from tests.support.databases import Database, make_postgresql, make_sqlite, start_postgresql

# It waits up to 5,000 ms for each connection to end.
_LEAVE = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"


@contextmanager
def fresh_database(dialect: str) -> Iterator[Database]:
    """A migrated database for one test."""
    database = _copy_sqlite() if dialect == "sqlite" else _copy_postgresql()
    try:
        yield database
    finally:
        database.close()


@contextmanager
def engine_on(database_url: str) -> Iterator[Engine]:
    """Plain connections to a database, without the app's settings; closed at the end."""
    engine = create_engine(database_url, pool_pre_ping=True)  # the test may have stopped the server meanwhile
    try:
        yield engine
    finally:
        engine.dispose()


@cache
def _template(dialect: str) -> Database:
    """Made by the migrations, and never connected to again: PostgreSQL copies no database that has connections."""
    database = make_sqlite() if dialect == "sqlite" else make_postgresql()
    atexit.register(database.close)
    return database


def _copy_sqlite() -> Database:
    folder = databases.sqlite_folder()
    copied = make_url(_template("sqlite").url).database
    assert copied is not None
    shutil.copytree(Path(copied).parent, folder, dirs_exist_ok=True)
    return Database(f"sqlite:///{folder / Path(copied).name}", lambda: shutil.rmtree(folder))


def _copy_postgresql() -> Database:
    server = os.environ.get("TEST_DATABASE_URL") or start_postgresql()
    name, copied = f"test_{uuid.uuid4().hex}", make_url(_template("postgresql").url).database
    # A pooler in between keeps its connections to the template for a while.
    databases._administer(server, _LEAVE.format(name=copied))
    # By files it takes half of the time that it takes by the log, which is PostgreSQL's default.
    databases._administer(server, f'CREATE DATABASE "{name}" TEMPLATE "{copied}" STRATEGY FILE_COPY')
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    return Database(url, lambda: databases._administer(server, f'DROP DATABASE "{name}" WITH (FORCE)'))
