"""Credit notes for refunds, and what a tax rate is of: the amount, or contained in it.

The release before this one goes on: it leaves the new columns at their defaults, and its refunds get no credit note.
`refunds credit` issues those that are missing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)
INDEX = "uq_refunds_credit_note"


def upgrade() -> None:
    if not _is_postgresql():
        _create_tables()
        op.add_column("refunds", sa.Column("credit_note_id", ID))
        op.add_column("tax_records", _basis())
        op.create_index(INDEX, "refunds", ["credit_note_id"], unique=True)
        return
    # Each statement commits by itself, so that it locks one busy table for a moment. Cut short and run again, it goes
    # on where it stopped.
    with op.get_context().autocommit_block():
        _create_tables()
        op.add_column("refunds", sa.Column("credit_note_id", ID), if_not_exists=True)
        op.add_column("tax_records", _basis(), if_not_exists=True)
        # CREATE INDEX CONCURRENTLY that was cut short leaves an index that no query uses and every insert updates.
        op.drop_index(INDEX, "refunds", if_exists=True)
        op.create_index(INDEX, "refunds", ["credit_note_id"], unique=True, postgresql_concurrently=True)


def downgrade() -> None:
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM credit_notes")):
        raise RuntimeError("There are credit notes, and the tables before this migration cannot hold them.")
    op.drop_index(INDEX, "refunds")
    op.drop_column("refunds", "credit_note_id")
    op.drop_column("tax_records", "tax_basis")
    op.drop_table("credit_notes")
    op.drop_table("credit_note_counters")


def _create_tables() -> None:
    op.create_table(
        "credit_note_counters",
        sa.Column("series", sa.String(8), nullable=False),
        sa.Column("last_number", ID, nullable=False),
        sa.PrimaryKeyConstraint("series", name="pk_credit_note_counters"),
        sa.CheckConstraint("last_number > 0", name="last_number_positive"),
        if_not_exists=True,
    )
    op.create_table(
        "credit_notes",
        sa.Column("id", ID, nullable=False),
        sa.Column("payment_id", ID, nullable=False),
        sa.Column("invoice_id", ID, nullable=False),
        sa.Column("series", sa.String(8), nullable=False),
        sa.Column("number", ID, nullable=False),
        sa.Column("amount_minor", ID, nullable=False),
        sa.Column("tax_minor", ID, nullable=False),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("voided_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_credit_notes"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_credit_notes_payment"),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name="fk_credit_notes_invoice"),
        sa.UniqueConstraint("series", "number", name="uq_credit_notes_number"),
        sa.CheckConstraint("number > 0", name="number_positive"),
        sa.CheckConstraint("amount_minor > 0 AND tax_minor BETWEEN 0 AND amount_minor", name="tax_within_amount"),
        sa.CheckConstraint("status IN ('issued', 'void')", name="status_known"),
        sa.CheckConstraint("(status = 'void') = (voided_at IS NOT NULL)", name="voided_when_void"),
        if_not_exists=True,
    )
    op.create_index("ix_credit_notes_payment", "credit_notes", ["payment_id"], if_not_exists=True)
    op.create_index("ix_credit_notes_invoice", "credit_notes", ["invoice_id"], if_not_exists=True)


def _basis() -> sa.Column[str]:
    return sa.Column("tax_basis", sa.String(16), nullable=False, server_default="amount")


def _is_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"
