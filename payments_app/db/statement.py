"""Statements that are compiled once, and sent to PostgreSQL without SQLAlchemy if they run outside a transaction."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import CompoundSelect, Engine, Select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg as PsycopgDialect
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler

from payments_app.db.engine import execute_directly


class DirectStatement:
    """A frequent statement, written in SQLAlchemy Core and compiled once.

    If the engine has no explicit transactions, it goes to PostgreSQL without SQLAlchemy's execution, and commits by
    itself. Otherwise it runs in the session's transaction.
    """

    def __init__(self, statement: Select[Any] | CompoundSelect[Any], *, planned_by_values: bool = False) -> None:
        """``planned_by_values``: PostgreSQL plans it anew each time, by the values that it is given, and not once for
        all: for what is asked seldom, and has a good plan for few rows and another one for many.
        """
        self._statement = statement
        self._planned_by_values = planned_by_values

    def rows(self, session: Session, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The resulting rows, with columns in the statement's order."""
        engine = session.get_bind()
        assert isinstance(engine, Engine)  # noqa: S101  # for the type checker: every session here is bound to an engine
        if engine.get_execution_options()["begin"] is not None:
            rows: Sequence[Sequence[Any]] = session.execute(self._statement, values).all()
            return rows
        text, names = self._compiled
        parameters = [values[name] for name in names]
        return execute_directly(engine, text, parameters, planned_by_values=self._planned_by_values)

    @cached_property
    def _compiled(self) -> tuple[bytes, Sequence[str]]:
        """The SQL text with placeholders $1, $2 ..., and the parameter names in that order."""
        compiled = self._statement.compile(dialect=PsycopgDialect(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
        assert isinstance(compiled, SQLCompiler)  # noqa: S101  # for the type checker: a statement is no DDL
        return compiled.string.encode(), compiled.positiontup or ()
