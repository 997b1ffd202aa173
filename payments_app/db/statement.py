"""Statements that are compiled once, and sent to PostgreSQL without SQLAlchemy's execution."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import CompoundSelect, Engine, Select, TextClause
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg as PsycopgDialect
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from payments_app.db.engine import execute_directly, execute_on


class DirectStatement:
    """A frequent statement, written in SQLAlchemy Core and compiled once.

    It goes to PostgreSQL without SQLAlchemy's execution, and commits by itself if the engine has no explicit
    transactions. Otherwise, and on SQLite, it runs in the session's transaction. It does not flush.
    """

    def __init__(
        self,
        statement: Select[Any] | CompoundSelect[Any] | ReturningInsert[Any] | ReturningUpdate[Any] | TextClause,
        *,
        planned_by_values: bool = False,
    ) -> None:
        """``planned_by_values``: PostgreSQL plans it anew each time, by the values that it is given, and not once for
        all: for what is asked seldom, and has a good plan for few rows and another one for many.
        """
        self._statement = statement
        self._planned_by_values = planned_by_values

    def rows(self, session: Session, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The resulting rows, with columns in the statement's order."""
        engine = session.get_bind()
        assert isinstance(engine, Engine)  # noqa: S101  # for the type checker: every session here is bound to an engine
        if engine.dialect.name != "postgresql":
            with session.no_autoflush:
                rows: Sequence[Sequence[Any]] = session.execute(self._statement, values).all()
            return rows
        text, names, literals = self._compiled
        parameters = [values[name] if name in values else literals[name] for name in names]
        if engine.get_execution_options()["begin"] is None:
            return execute_directly(engine, text, parameters, planned_by_values=self._planned_by_values)
        connection = session.connection()
        return execute_on(connection, text, parameters, planned_by_values=self._planned_by_values).fetchall()

    @cached_property
    def _compiled(self) -> tuple[bytes, Sequence[str], Mapping[str, Any]]:
        """The SQL text with placeholders $1, $2 ..., the parameter names in that order, and the statement's own values
        by name.
        """
        compiled = self._statement.compile(dialect=PsycopgDialect(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
        assert isinstance(compiled, SQLCompiler)  # noqa: S101  # for the type checker: a statement is no DDL
        return compiled.string.encode(), compiled.positiontup or (), compiled.params
