"""The feed: positions of events, and the refund or dispute that an event is about.

The release before this one goes on writing events: it leaves the new columns empty, and positions are given afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WAITING = "position IS NULL"

# Events that get their position in one transaction: some tenths of a second each, beside a service that goes on.
BATCH_SIZE = 10_000

# Oldest first; within a payment in the order in which it changed. Not of users of `payments prove`, who are removed
# again. As in ``payments_app/events/positions.py``, which says why it is written in this way.
GIVE = """
    WITH oldest AS (
        SELECT e.payment_id, e.version FROM payment_events e WHERE e.position IS NULL AND (
            SELECT u.email FROM payments p JOIN users u ON u.id = p.user_id
            WHERE p.id = e.payment_id) NOT LIKE 'prove-%@proof.invalid'
        ORDER BY e.created_at, e.id LIMIT :size
    ), latest AS (
        SELECT payment_id, max(version) AS version FROM oldest GROUP BY payment_id
    ), timed AS (
        SELECT e.id, e.payment_id, e.version, e.created_at,
            max(e.created_at) OVER (PARTITION BY e.payment_id ORDER BY e.version, e.created_at, e.id) AS moment
        FROM payment_events e JOIN latest l ON l.payment_id = e.payment_id AND e.version <= l.version
        WHERE coalesce(e.position, 0) = 0
    ), placed AS (
        SELECT id, row_number() OVER (ORDER BY moment, payment_id, version, created_at, id)
            + (SELECT coalesce(max(position), 0) FROM payment_events) AS position,
            (SELECT c.reference FROM payments p JOIN consultations c ON c.id = p.consultation_id
                WHERE p.id = timed.payment_id) AS reference
        FROM timed
    )
    UPDATE payment_events SET position = placed.position, consultation_reference = placed.reference
    FROM placed WHERE payment_events.id = placed.id RETURNING payment_events.id"""


def upgrade() -> None:
    # Each statement commits by itself. Cut short and run again, it goes on where it stopped.
    with _beside_the_service():
        for column in _columns():
            op.add_column("payment_events", column, **({"if_not_exists": True} if _is_postgresql() else {}))
        _create_index("ix_payment_events_waiting", ["created_at", "id"], where=WAITING)
        _create_index("uq_payment_events_position", ["position"], unique=True)
        while len(op.get_bind().execute(sa.text(GIVE), {"size": BATCH_SIZE}).all()) >= BATCH_SIZE:
            pass


def downgrade() -> None:
    with _beside_the_service():
        for index in ("uq_payment_events_position", "ix_payment_events_waiting"):
            op.drop_index(index, "payment_events", if_exists=True)
        if _is_postgresql():
            dropped = ", ".join(f"DROP COLUMN IF EXISTS {column.name}" for column in _columns())
            op.execute(f"ALTER TABLE payment_events {dropped}")
        else:
            for column in reversed(_columns()):
                op.drop_column("payment_events", column.name)


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("refund_id", ID),
        sa.Column("refund_amount_minor", ID),
        sa.Column("dispute_id", ID),
        sa.Column("position", ID),
        sa.Column("consultation_reference", sa.String(64)),
    ]


def _create_index(name: str, columns: list[str], *, where: str | None = None, unique: bool = False) -> None:
    # CREATE INDEX CONCURRENTLY that was cut short leaves an index that nobody may use and every insert keeps up.
    op.drop_index(name, "payment_events", if_exists=True)
    rows = None if where is None else sa.text(where)
    op.create_index(
        name,
        "payment_events",
        columns,
        unique=unique,
        postgresql_concurrently=True,
        postgresql_where=rows,
        sqlite_where=rows,
    )


@contextmanager
def _beside_the_service() -> Iterator[None]:
    """Outside a transaction on PostgreSQL, as CONCURRENTLY asks: for as long as it takes, people go on paying."""
    if not _is_postgresql():
        yield
        return
    with op.get_context().autocommit_block():
        yield


def _is_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"
