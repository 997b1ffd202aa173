"""Indexes by which the front desk finds payments from the beginning of a reference or of a transaction."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Table and column, by the index's name. Compared by character: LIKE cannot use an index in a language's order.
SEARCHED = {
    "ix_payments_transaction_search": ("payments", "transaction_id"),
    "ix_consultations_reference_search": ("consultations", "reference"),
}


def upgrade() -> None:
    with _beside_the_service():
        for name, (table, column) in SEARCHED.items():
            # CREATE INDEX CONCURRENTLY that was cut short leaves an index that nobody may use.
            op.drop_index(name, table, if_exists=True)
            op.create_index(
                name,
                table,
                [column],
                postgresql_ops={column: "text_pattern_ops"},
                postgresql_concurrently=True,
                postgresql_where=sa.text(f"{column} IS NOT NULL"),
                sqlite_where=sa.text(f"{column} IS NOT NULL"),
            )


def downgrade() -> None:
    with _beside_the_service():
        for name, (table, _) in SEARCHED.items():
            op.drop_index(name, table, if_exists=True)


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
