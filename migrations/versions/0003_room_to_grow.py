"""Indexes and free space for large tables. Their effect is measured in docs/performance.md.

A migration must not change later: so the predicate is written out here, not imported from the code.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Percent of a page that inserts may fill. An invoice changes once, when its payment ends. The new version then fits on
# the same page, and no index has to change.
INVOICES_FILLFACTOR = 90


def upgrade() -> None:
    with _without_blocking_writes():
        _create_index("ix_payments_consultation_history", ["consultation_id", "created_at", "id"])
        _create_index("ix_payments_review", ["id"], postgresql_where="needs_review", sqlite_where="needs_review = 1")
    # In a transaction again, and quick; the index that replaces it exists.
    op.drop_index("ix_payments_consultation_user", "payments")
    if _is_postgresql():
        op.execute(f"ALTER TABLE invoices SET (fillfactor = {INVOICES_FILLFACTOR})")


def downgrade() -> None:
    # The steps that lock the whole table come first: if the lock times out, nothing has changed.
    for name in ("ix_payments_review", "ix_payments_consultation_history"):
        op.drop_index(name, "payments", if_exists=True)
    if _is_postgresql():
        op.execute("ALTER TABLE invoices RESET (fillfactor)")
    with _without_blocking_writes():
        _create_index("ix_payments_consultation_user", ["consultation_id", "user_id"])


def _create_index(name: str, columns: list[str], **where: str) -> None:
    # An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index, which no query uses and every insert updates.
    op.drop_index(name, "payments", if_exists=True)
    predicates = {dialect: sa.text(predicate) for dialect, predicate in where.items()}
    op.create_index(name, "payments", columns, postgresql_concurrently=True, **predicates)


@contextmanager
def _without_blocking_writes() -> Iterator[None]:
    """Run outside a transaction on PostgreSQL, as CONCURRENTLY requires: payments go on meanwhile."""
    if not _is_postgresql():
        yield
        return
    with op.get_context().autocommit_block():
        yield


def _is_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"
