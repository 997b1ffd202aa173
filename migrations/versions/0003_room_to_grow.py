"""Indexes and room for tables that have grown large. What each is worth: docs/performance.md.

A migration is history: the predicate is written out here, not taken from the code, which may change.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Percent of a page that inserts may fill. An invoice is changed once, when its payment ends: it finds room on its own
# page then, and none of its indexes hears of it.
INVOICES_FILLFACTOR = 90


def upgrade() -> None:
    with _beside_the_service():
        _create_index("ix_payments_consultation_history", ["consultation_id", "created_at", "id"])
        _create_index("ix_payments_review", ["id"], postgresql_where="needs_review", sqlite_where="needs_review = 1")
    # In a transaction again, and in no time: what replaces it is there.
    op.drop_index("ix_payments_consultation_user", "payments")
    if _is_postgresql():
        op.execute(f"ALTER TABLE invoices SET (fillfactor = {INVOICES_FILLFACTOR})")


def downgrade() -> None:
    # First what needs the whole table for a moment: where that is not to be had, nothing has changed.
    for name in ("ix_payments_review", "ix_payments_consultation_history"):
        op.drop_index(name, "payments", if_exists=True)
    if _is_postgresql():
        op.execute("ALTER TABLE invoices RESET (fillfactor)")
    with _beside_the_service():
        _create_index("ix_payments_consultation_user", ["consultation_id", "user_id"])


def _create_index(name: str, columns: list[str], **where: str) -> None:
    # CREATE INDEX CONCURRENTLY that was cut short leaves an index that nobody may use and every insert keeps up.
    op.drop_index(name, "payments", if_exists=True)
    predicates = {dialect: sa.text(predicate) for dialect, predicate in where.items()}
    op.create_index(name, "payments", columns, postgresql_concurrently=True, **predicates)


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
