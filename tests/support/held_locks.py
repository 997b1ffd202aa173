"""Locks that somebody else holds in PostgreSQL, and requests that wait for them."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from tests.support.rows import Rows
from tests.support.waiting import wait_until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@contextmanager
def held(engine: Engine, statement: str, **values: object) -> Iterator[Connection]:
    """A transaction of somebody else's that has a lock, until the block ends: then it is rolled back."""
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text(statement), values)
        yield connection
        transaction.rollback()


def wait_for_waiting(rows: Rows, number: int) -> None:
    wait_until(lambda: rows.all(WAITING)[0]["count"] >= number)
