"""Records the statements that are sent to a database."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from payments_app import readiness
from payments_app.db import engine as db_engine
from payments_app.db import statement

# Called with the engine, the statement and its parameters.
Listener = Callable[[Engine, str, Sequence[Any]], None]


@contextmanager
def statements_sent(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Every statement and its parameters, in order, while the block runs.

    Not those of the readiness checks, if they have passed before: when they run again depends on the time alone.
    """
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_more: Any) -> None:
        sent.append((sql, parameters))

    def note_direct(used: Engine, sql: str, values: Sequence[Any]) -> None:
        if used.pool is engine.pool:
            sent.append((sql, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        with lone_statements(before=note_direct), _direct_in_transactions(note_direct), _checked_before():
            yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


@contextmanager
def lone_statements(*, before: Listener, after: Listener = lambda *_: None) -> Iterator[None]:
    """Call the listeners before and after each direct statement outside a transaction: SQLAlchemy has no events for
    direct statements.
    """
    execute = vars(statement)["execute_directly"]  # from db.engine, or another listener's

    def observed(engine: Engine, sql: bytes, values: Sequence[Any], **options: Any) -> list[tuple[Any, ...]]:
        before(engine, sql.decode(), values)
        rows: list[tuple[Any, ...]] = execute(engine, sql, values, **options)
        after(engine, sql.decode(), values)
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statement, "execute_directly", observed)
        yield


@contextmanager
def _checked_before() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readiness, "REFRESH_AFTER_SECONDS", math.inf)
        yield


@contextmanager
def _direct_in_transactions(before: Listener) -> Iterator[None]:
    execute = db_engine.execute_on

    def observed(connection: Connection, sql: bytes, values: Sequence[Any] | None = None, **options: Any) -> Any:
        before(connection.engine, sql.decode(), values or ())
        return execute(connection, sql, values, **options)

    with pytest.MonkeyPatch.context() as patch:
        for user in (db_engine, statement):
            patch.setattr(user, "execute_on", observed)
        yield
