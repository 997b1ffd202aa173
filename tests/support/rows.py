"""Reads the database directly, to check what was stored and not only what the API shows."""

from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from payments_app.payments import audit

# All checks of the audit as one statement: one by one they can take longer than the rest of a test.
_AUDIT = text(
    " UNION ALL ".join(f"SELECT '{c.invariant}' AS invariant, id, detail FROM ({c.query}) AS q" for c in audit.CHECKS)
)


class Rows:
    """Counts and fetches rows by plain SQL.

    Each transaction is committed: after a rollback psycopg forgets all that it has prepared on a connection, also for
    the app, and PostgreSQL plans each statement anew. To plan the audit takes eight times as long as to execute it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    def moment(self, at: datetime) -> datetime | str:
        """A time as the database stores it, to be written without the app."""
        return f"{at:%Y-%m-%d %H:%M:%S.%f}" if self.is_sqlite else at

    def count(self, table: str, where: str = "1 = 1", **values: Any) -> int:
        counted: int = self.one(f"SELECT count(*) AS n FROM {table} WHERE {where}", **values)["n"]
        return counted

    def counts(self, *tables: str) -> dict[str, int]:
        return self.one("SELECT " + ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in tables))

    def all(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with self._engine.begin() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    def one(self, query: str, **values: Any) -> dict[str, Any]:
        (row,) = self.all(query, **values)
        return row

    def violations(self) -> list[dict[str, Any]]:
        """What ``payments audit`` would report."""
        with self._engine.begin() as connection:
            return [dict(row) for row in connection.execute(_AUDIT).mappings()]

    def execute(self, statement: str, **values: Any) -> None:
        """Execute a statement without the app."""
        with self._engine.begin() as connection:
            connection.execute(text(statement), values)


MADE_TOGETHER = ("payments", "invoices", "tax_records", "payment_events", "idempotency_keys")
EVERYTHING = (
    "users",
    "consultations",
    "payment_links",
    "api_keys",
    *MADE_TOGETHER,
    "gateway_sessions",
    "refunds",
    "credit_notes",
    "disputes",
    "webhook_events",
    "webhook_endpoints",
    "webhook_deliveries",
)
