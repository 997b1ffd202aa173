"""Databases whose last line of defence a test may take away."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import make_url, text

from tests.support.databases import Database
from tests.support.fresh_databases import engine_on, fresh_database

Alter = Callable[..., None]


def read_only(alter: Alter, database: Database, value: str) -> None:
    """As a standby is, for all connections from now on."""
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
    """Change the schema behind everybody's back, each statement by itself."""

    def run(database: Database, *statements: str) -> None:
        with engine_on(database.url) as engine:
            own = engine.execution_options(isolation_level="AUTOCOMMIT")
            with own.connect() as connection:
                for statement in statements:
                    connection.execute(text(statement))

    return run
