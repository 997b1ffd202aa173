"""Databases whose constraints a test may remove."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import make_url, text

from tests.support.databases import Database
from tests.support.fresh_databases import engine_on, fresh_database

Alter = Callable[..., None]


def read_only(alter: Alter, database: Database, value: str) -> None:
    """Make all later connections read-only, as on a standby, or no longer."""
    name = make_url(database.url).database
    alter(
        database,
        "SET default_transaction_read_only = off",
        f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}',
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def own_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    with fresh_database(request.param) as database:
        yield database


@pytest.fixture
def postgresql() -> Iterator[Database]:
    with fresh_database("postgresql") as database:
        yield database


@pytest.fixture
def sqlite() -> Iterator[Database]:
    with fresh_database("sqlite") as database:
        yield database


@pytest.fixture
def alter() -> Alter:
    """Change the schema without the app, each statement in its own transaction."""

    def run(database: Database, *statements: str) -> None:
        with engine_on(database.url) as engine:
            own = engine.execution_options(isolation_level="AUTOCOMMIT")
            with own.connect() as connection:
                for statement in statements:
                    connection.execute(text(statement))

    return run
