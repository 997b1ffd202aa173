"""The steps of what the service does, each heard of before it is taken: statements, commits, calls to the gateway.

They are heard of from SQLAlchemy and from Python's own HTTP client, so that a new statement in the code is a new step
here without anybody's doing.
"""

import http.client
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event

from payments_app.db.base import Base

# Who signs in is read by everybody and written by nobody here; a block of ids is taken by one statement, or the other.
TABLES = frozenset(Base.metadata.tables) - {"users", "id_blocks"}
_PARENTS = {
    name: frozenset(key.column.table.name for key in table.foreign_keys) & TABLES
    for name, table in Base.metadata.tables.items()
}
_NAMES = re.compile(rf"\b({'|'.join(sorted(Base.metadata.tables, key=len, reverse=True))})\b")
_INSERTED = re.compile(r"\bINSERT INTO (\w+)")
_CHANGED = re.compile(r"(?<!FOR )(?<!DO )(?<!KEY )\bUPDATE (\w+)|\bDELETE FROM (\w+)")
_LOCKING = re.compile(r"\bFOR (NO KEY |KEY )?(UPDATE|SHARE)\b")
_VERB = re.compile(r"\b(INSERT|UPDATE|DELETE|SELECT|BEGIN|SAVEPOINT|RELEASE|ROLLBACK|\w+)\b")

_IDS = re.compile(r"\b[a-z]+_[0-9a-f]{16,}")

# In a connection's info: the tables that its transaction has changed or locked rows of.
_HELD = "held by this transaction"


class Kind(Enum):
    STATEMENT = "statement"
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"
    CALL = "call"


@dataclass(frozen=True)
class Step:
    """What is about to be done, and of which tables it sees rows, holds rows, or shows others what was done to them."""

    kind: Kind
    words: str
    sees: frozenset[str] = frozenset()
    holds: frozenset[str] = frozenset()
    shows: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.words

    @property
    def concerns_others(self) -> bool:
        return self.kind is Kind.CALL or bool(self.sees | self.holds | self.shows)

    @property
    def is_for_good(self) -> bool:
        """Whether, once it is done, it is not undone when the process dies."""
        return self.kind is Kind.CALL or (bool(self.shows) and self.kind is not Kind.ROLLBACK)

    def depends_on(self, other: "Step") -> bool:
        """Whether it may make a difference which of the two comes first.

        In READ COMMITTED, which the service uses, a statement sees what was committed before it began, and waits for
        nobody but those who hold a row that it wants too.
        """
        if Kind.CALL in (self.kind, other.kind):
            return self.kind is other.kind
        return bool(
            self.holds & other.holds
            or self.shows & (other.sees | other.holds)
            or other.shows & (self.sees | self.holds)
        )


# Who is told of each step, with the driver's connection that is to take it, where it is the database's.
Listener = Callable[[Step, Any], None]
_listeners: list[Listener] = []


def announce(step: Step, driver: Any = None) -> None:
    for listener in _listeners:
        listener(step, driver)


@contextmanager
def listening(
    target: Engine | type[Engine], listener: Listener, *, answered: Callable[..., None] = lambda *_: None
) -> Iterator[None]:
    """Tell the listener of each step, in the thread that is about to take it; the step is taken when it returns.

    ``answered`` is called, in the same thread, when the database has answered a statement, well or ill.
    """
    heard: list[tuple[str, Callable[..., None]]] = [
        ("before_cursor_execute", _on_statement),
        ("commit", _on_commit),
        ("rollback", _on_rollback),
        ("after_cursor_execute", answered),
        ("handle_error", answered),
    ]
    put_request, execute_alone = http.client.HTTPConnection.putrequest, psycopg.RawCursor.execute
    _listeners.append(listener)
    for name, heard_of in heard:
        event.listen(target, name, heard_of)
    http.client.HTTPConnection.putrequest = _announcing(put_request)  # type: ignore[method-assign]  # given back below
    psycopg.RawCursor.execute = _announcing_alone(execute_alone, answered)  # type: ignore[method-assign]  # given back below
    try:
        yield
    finally:
        psycopg.RawCursor.execute = execute_alone  # type: ignore[method-assign]  # as it was
        http.client.HTTPConnection.putrequest = put_request  # type: ignore[method-assign]  # as it was
        for name, heard_of in heard:
            event.remove(target, name, heard_of)
        _listeners.remove(listener)


def commits_itself(connection: Connection) -> bool:
    """Whether each statement on this connection is a transaction by itself."""
    is_to_begin = connection.get_execution_options().get("begin") is not None
    return connection.dialect.name == "postgresql" and driver_connection(connection).autocommit and not is_to_begin


def driver_connection(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def _on_statement(connection: Connection, _cursor: Any, sql: str, *_more: Any) -> None:
    alone = commits_itself(connection)
    step = _step_of(sql, alone=alone)
    announce(step, driver_connection(connection))
    if not alone:
        connection.info.setdefault(_HELD, set()).update(step.holds)


def _step_of(sql: str, *, alone: bool) -> Step:
    named = frozenset(_NAMES.findall(sql))
    inserted = frozenset(_INSERTED.findall(sql))
    changed = frozenset(name for names in _CHANGED.findall(sql) for name in names)
    locked = named if _LOCKING.search(sql) else frozenset()
    # Who inserts a row locks those that it refers to.
    parents = frozenset(parent for name in inserted for parent in _PARENTS.get(name, ()))
    holds = (inserted | changed | locked | parents) & TABLES
    shows = holds if alone else frozenset()
    return Step(Kind.STATEMENT, _words(sql, named), sees=named & TABLES, holds=holds, shows=shows)


def _on_commit(connection: Connection) -> None:
    _on_end(Kind.COMMIT, connection)


def _on_rollback(connection: Connection) -> None:
    _on_end(Kind.ROLLBACK, connection)


def _on_end(kind: Kind, connection: Connection) -> None:
    if commits_itself(connection):
        return
    step = Step(kind, kind.value, shows=frozenset(connection.info.get(_HELD, ())))
    announce(step, driver_connection(connection))
    connection.info[_HELD] = set()


def _announcing_alone(execute: Callable[..., Any], answered: Callable[..., None]) -> Callable[..., Any]:
    """What goes to PostgreSQL without SQLAlchemy goes by this cursor, and commits itself."""

    def announcing(cursor: psycopg.RawCursor[Any], sql: bytes, *args: Any, **kwargs: Any) -> Any:
        announce(_step_of(sql.decode(), alone=True), cursor.connection)
        try:
            return execute(cursor, sql, *args, **kwargs)
        finally:
            answered()

    return announcing


def _announcing(put_request: Callable[..., None]) -> Callable[..., None]:
    def announcing(client: http.client.HTTPConnection, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        path = _IDS.sub("<id>", url.partition("?")[0])  # they are others each time
        announce(Step(Kind.CALL, f"{method} {path}"))
        put_request(client, method, url, *args, **kwargs)

    return announcing


def _words(sql: str, named: frozenset[str]) -> str:
    """``UPDATE payments`` of an UPDATE, so that a list of steps can be read."""
    found = _VERB.search(sql)
    verb = "INSERT" if _INSERTED.search(sql) else found.group() if found else sql
    tables = _INSERTED.findall(sql) or sorted(named)
    lock = " FOR UPDATE" if verb == "SELECT" and _LOCKING.search(sql) else ""
    return f"{verb} {', '.join(tables)}{lock}".strip()
