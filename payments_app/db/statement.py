"""Statements that are compiled once, and sent past SQLAlchemy if they are a transaction by themselves."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import CompoundSelect, Engine, Select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg as PsycopgDialect
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler

from payments_app.db.engine import execute_directly


class DirectStatement:
    """What is done so often that it is one statement, described in Core, and compiled once.

    Where it is a transaction by itself it goes to PostgreSQL without SQLAlchemy, else in the session's transaction.
    """

    def __init__(self, statement: Select[Any] | CompoundSelect[Any]) -> None:
        self._statement = statement

    def rows(self, session: Session, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Its rows, columns in the order in which the statement names them."""
        engine = session.get_bind()
        assert isinstance(engine, Engine)  # noqa: S101  # for the type checker: none of our sessions is bound to less
        if engine.get_execution_options()["begin"] is not None:
            rows: Sequence[Sequence[Any]] = session.execute(self._statement, values).all()
            return rows
        text, names = self._in_postgresqls_words
        return execute_directly(engine, text, [values[name] for name in names])

    @cached_property
    def _in_postgresqls_words(self) -> tuple[str, Sequence[str]]:
        """With $1 for the first of the names, and so on."""
        compiled = self._statement.compile(dialect=PsycopgDialect(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]  # SQLAlchemy has no types for it
        assert isinstance(compiled, SQLCompiler)  # noqa: S101  # for the type checker: a statement is no DDL
        return compiled.string, compiled.positiontup or ()
