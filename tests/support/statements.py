"""Listening to what is sent to a database."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from payments_app.db import statement as direct

# Of the engine that is used, the statement and its parameters.
Listener = Callable[[Engine, str, Sequence[Any]], None]


@contextmanager
def statements_sent(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Every statement and its parameters, in order, while the block runs."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        sent.append((statement, parameters))

    def note_alone(used: Engine, statement: str, values: Sequence[Any]) -> None:
        if used.pool is engine.pool:
            sent.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        with lone_statements(before=note_alone):
            yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


@contextmanager
def lone_statements(*, before: Listener, after: Listener = lambda *_: None) -> Iterator[None]:
    """Call the listeners around every statement that goes to PostgreSQL alone, of which SQLAlchemy tells nobody."""
    run_alone = direct.execute_directly

    def told(engine: Engine, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        before(engine, statement, values)
        rows = run_alone(engine, statement, values)
        after(engine, statement, values)
        return rows

    direct.execute_directly = told
    try:
        yield
    finally:
        direct.execute_directly = run_alone
