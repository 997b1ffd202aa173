"""The steps of an operation, reported before each is done: statements, commits, calls to the gateway.

SQLAlchemy's events and Python's HTTP client report them, so that a new statement in the code is a new step here without
a change.
"""

import http.client
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, event

from payments_app.db.base import Base

# Without users, which operations only read, and id_blocks, whose blocks any statement may take.
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

_IDS = re.compile(r"\b(?:[a-z]+_)+[0-9a-f]{16,}")

# Of each driver's connection, by its id: the tables that its transaction has changed or locked rows of.
_held: defaultdict[int, set[str]] = defaultdict(set)


class Kind(Enum):
    STATEMENT = "statement"
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"
    CALL = "call"


@dataclass(frozen=True)
class Step:
    """A step, and the tables of which it reads rows, locks rows, or makes changes visible to others."""

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
        """Whether its effect stays if the process dies after it."""
        return self.kind is Kind.CALL or (bool(self.shows) and self.kind is not Kind.ROLLBACK)

    def depends_on(self, other: "Step") -> bool:
        """Whether the order of the two may make a difference.

        In READ COMMITTED, which the service uses, a statement sees what was committed before it began, and waits only
        for transactions that hold a row which it needs too.
        """
        if Kind.CALL in (self.kind, other.kind):
            return self.kind is other.kind
        return bool(
            self.holds & other.holds
            or self.shows & (other.sees | other.holds)
            or other.shows & (self.sees | self.holds)
        )


# Called with each step, and with the driver's connection if it is a step of the database.
Listener = Callable[[Step, Any], None]
_listeners: list[Listener] = []


def announce(step: Step, driver: Any = None) -> None:
    for listener in _listeners:
        listener(step, driver)


@contextmanager
def listening(
    target: Engine | type[Engine], listener: Listener, *, answered: Callable[..., None] = lambda *_: None
) -> Iterator[None]:
    """Call the listener before each step, in the thread that does it; the step is done when the listener returns.

    ``answered`` is called in the same thread after each statement, successful or not.
    """
    heard: list[tuple[str, Callable[..., None]]] = [
        ("before_cursor_execute", _on_statement),
        ("commit", _on_commit),
        ("rollback", _on_rollback),
        ("after_cursor_execute", answered),
        ("handle_error", answered),
    ]
    put_request, execute_direct = http.client.HTTPConnection.putrequest, psycopg.RawCursor.execute
    _listeners.append(listener)
    for name, heard_of in heard:
        event.listen(target, name, heard_of)
    http.client.HTTPConnection.putrequest = _announcing(put_request)  # type: ignore[method-assign]  # given back below
    psycopg.RawCursor.execute = _announcing_direct(execute_direct, answered)  # type: ignore[method-assign]  # given back below
    try:
        yield
    finally:
        psycopg.RawCursor.execute = execute_direct  # type: ignore[method-assign]  # as it was
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
    _announce_statement(sql, driver_connection(connection), alone=commits_itself(connection))


def _announce_statement(sql: str, driver: Any, *, alone: bool) -> None:
    step = _step_of(sql, alone=alone)
    announce(step, driver)
    if not alone:
        _held[id(driver)].update(step.holds)


def _step_of(sql: str, *, alone: bool) -> Step:
    named = frozenset(_NAMES.findall(sql))
    inserted = frozenset(_INSERTED.findall(sql))
    changed = frozenset(name for names in _CHANGED.findall(sql) for name in names)
    locked = named if _LOCKING.search(sql) else frozenset()
    # An INSERT locks the rows that its foreign keys refer to.
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
    driver = driver_connection(connection)
    announce(Step(kind, kind.value, shows=frozenset(_held[id(driver)])), driver)
    del _held[id(driver)]


def _announcing_direct(execute: Callable[..., Any], answered: Callable[..., None]) -> Callable[..., Any]:
    """Direct statements, sent without SQLAlchemy, use this cursor; outside a transaction they commit themselves."""

    def announcing(cursor: psycopg.RawCursor[Any], sql: bytes, *args: Any, **kwargs: Any) -> Any:
        driver = cursor.connection
        alone = driver.info.transaction_status == TransactionStatus.IDLE
        _announce_statement(sql.decode(), driver, alone=alone)
        try:
            return execute(cursor, sql, *args, **kwargs)
        finally:
            answered()

    return announcing


def _announcing(put_request: Callable[..., None]) -> Callable[..., None]:
    def announcing(client: http.client.HTTPConnection, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        path = _IDS.sub("<id>", url.partition("?")[0])  # they differ in each run
        announce(Step(Kind.CALL, f"{method} {path}"))
        put_request(client, method, url, *args, **kwargs)

    return announcing


def _words(sql: str, named: frozenset[str]) -> str:
    """A short text such as ``UPDATE payments``, so that a list of steps is readable."""
    found = _VERB.search(sql)
    verb = "INSERT" if _INSERTED.search(sql) else found.group() if found else sql
    tables = _INSERTED.findall(sql) or sorted(named)
    lock = " FOR UPDATE" if verb == "SELECT" and _LOCKING.search(sql) else ""
    return f"{verb} {', '.join(tables)}{lock}".strip()
