"""Refunds, and the inbox of webhook events.

A migration must not change later: so the statuses are written out here, not imported from the code.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)

OPEN = "status IN ('pending', 'unknown')"


def upgrade() -> None:
    op.add_column("payments", sa.Column("review_held", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "refunds",
        sa.Column("id", BIG, nullable=False),
        sa.Column("payment_id", BIG, nullable=False),
        sa.Column("amount_minor", BIG, nullable=False),
        sa.Column("excess_minor", BIG, nullable=False),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(500)),
        sa.Column("decline_reason", sa.String(500)),
        sa.Column("gateway", sa.String(32), nullable=False),
        sa.Column("reference", sa.String(255)),
        sa.Column("made_elsewhere", sa.Boolean(), nullable=False),
        sa.Column("leased_until", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("settled_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_refunds"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_refunds_payment"),
        sa.UniqueConstraint("gateway", "reference", name="uq_refunds_reference"),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_refunds_amount_positive")),
        sa.CheckConstraint("excess_minor BETWEEN 0 AND amount_minor", name=op.f("ck_refunds_excess_within_amount")),
        sa.CheckConstraint(
            "status IN ('pending', 'unknown', 'succeeded', 'failed')", name=op.f("ck_refunds_status_known")
        ),
        sa.CheckConstraint(f"({OPEN}) = (settled_at IS NULL)", name=op.f("ck_refunds_settled_when_over")),
        sa.CheckConstraint("made_elsewhere OR excess_minor = 0", name=op.f("ck_refunds_ours_fit")),
        sa.CheckConstraint("version >= 0", name=op.f("ck_refunds_version_not_negative")),
    )
    op.create_index("ix_refunds_payment", "refunds", ["payment_id", "id"])
    op.create_index(
        "ix_refunds_open", "refunds", ["leased_until"], postgresql_where=sa.text(OPEN), sqlite_where=sa.text(OPEN)
    )
    op.create_table(
        "webhook_events",
        sa.Column("gateway", sa.String(32), nullable=False),
        sa.Column("event_id", sa.String(255), nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("reference", sa.String(255), nullable=False),
        sa.Column("payment_id", BIG),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("gateway", "event_id", name="pk_webhook_events"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_webhook_events_payment"),
    )
    op.create_index("ix_webhook_events_payment", "webhook_events", ["payment_id"])


def downgrade() -> None:
    # The refunds would be lost, and their idempotency keys would later refer to the ids of other refunds.
    if op.get_bind().execute(sa.text("SELECT count(*) FROM refunds")).scalar_one():
        raise RuntimeError("There are refunds, and the tables before this migration cannot hold them.")
    op.drop_table("webhook_events")
    op.drop_table("refunds")
    op.drop_column("payments", "review_held")
