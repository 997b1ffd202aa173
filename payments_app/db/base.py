"""The base class of all models, and column types and statements for both databases."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Dialect, MetaData, Table, literal_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import BigInteger, Integer, TypeDecorator

# Migrations name every constraint themselves. The convention is for constraints that a model leaves unnamed.
NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}


class Base(DeclarativeBase):
    """The base class of all models."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


# SQLite assigns ids only for a column of type INTEGER, which has 64 bits there.
BigId = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A UTC time: ``timestamptz`` on PostgreSQL; on SQLite a text of fixed width, which sorts by time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def in_check(column: str, values: Iterable[str]) -> str:
    """The SQL condition, for a CHECK, that a column holds one of the values."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def constant(value: str) -> ColumnElement[str]:
    """A value from our code, for a statement; never one from a request, because it is not escaped.

    It stands in the statement's text. So PostgreSQL recognises the predicate of an index, and knows how rare the value
    is, which it cannot of a parameter.
    """
    return literal_column(repr(str(value)))


def table_of(model: type[Base]) -> Table:
    """The table of a model, for Core statements that bypass the ORM."""
    table = model.__table__
    assert isinstance(table, Table)  # noqa: S101  # for the type checker: no model of ours maps a join
    return table


def dialect_insert(session: Session, model: type[Base]) -> Any:
    """An INSERT with the method ``on_conflict_do_nothing``; SQLAlchemy has a construct of its own for each database."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    return dialect.insert(table_of(model))
