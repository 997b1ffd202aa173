"""The root of all models, and the column types that both databases share."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, MetaData, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import BigInteger, Integer, TypeDecorator

# Migrations name every constraint themselves; the convention is for what a model leaves unnamed.
NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}


class Base(DeclarativeBase):
    """The root of all models."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


# SQLite numbers rows by itself only for a column declared exactly INTEGER, which there holds 64 bits anyway.
BigId = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC: ``timestamptz`` on PostgreSQL; on SQLite, text of fixed width, which sorts as time does."""

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
    """The text of a CHECK that a column holds one of a closed set of words."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def table_of(model: type[Base]) -> Table:
    """The table of a model, for Core statements that are to bypass the ORM."""
    table = model.__table__
    assert isinstance(table, Table)  # noqa: S101  # for the type checker: no model of ours maps a join
    return table


def dialect_insert(session: Session, model: type[Base]) -> Any:
    """An INSERT that can be told ``on_conflict_do_nothing``, which each database spells in a construct of its own."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    return dialect.insert(table_of(model))
