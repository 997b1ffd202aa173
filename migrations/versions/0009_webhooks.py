"""Webhook endpoints, and the deliveries of events to them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)

NOT_TRIED = "status = 'pending' AND attempts = 0"
TRIED = "status = 'pending' AND attempts > 0"
DELIVERED = "status = 'delivered'"


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", ID, primary_key=True),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("types", sa.String(2048), nullable=False),
        sa.Column("description", sa.String(200)),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("previous_secret", sa.String(64)),
        sa.Column("previous_secret_ends_at", MOMENT),
        sa.Column("position", ID, nullable=False),
        sa.Column("attempts_delivered", ID, nullable=False),
        sa.Column("attempts_failed", ID, nullable=False),
        sa.Column("last_delivered_at", MOMENT),
        sa.Column("last_failed_at", MOMENT),
        sa.Column("failing_since", MOMENT),
        sa.Column("disabled_at", MOMENT),
        sa.Column("disabled_reason", sa.String(16)),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT),
        sa.CheckConstraint("disabled_reason IN ('by_hand', 'gone', 'failing')", name="disabled_reason_known"),
        sa.CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_for_a_reason"),
    )
    # The foreign keys lock the table of events for a moment, in a transaction that locks nothing else.
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", ID, primary_key=True),
        sa.Column("endpoint_id", ID, nullable=False),
        sa.Column("event_id", ID),
        sa.Column("position", ID, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=False),
        sa.Column("leased_until", MOMENT),
        sa.Column("lease", sa.String(32)),
        sa.Column("last_attempt_at", MOMENT),
        sa.Column("last_status_code", sa.Integer()),
        sa.Column("last_error", sa.String(32)),
        sa.Column("delivered_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], name="fk_webhook_deliveries_endpoint"),
        sa.ForeignKeyConstraint(["event_id"], ["payment_events.id"], name="fk_webhook_deliveries_event"),
        sa.UniqueConstraint("event_id", "endpoint_id", name="uq_webhook_deliveries_event"),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status_known"),
        sa.CheckConstraint("attempts >= 0", name="attempts_not_negative"),
        sa.CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_at_a_time"),
    )
    op.create_index("ix_webhook_deliveries_endpoint", "webhook_deliveries", ["endpoint_id", "id"])
    _create_partial_index("ix_webhook_deliveries_not_tried", ["endpoint_id", "position", "id"], NOT_TRIED)
    _create_partial_index("ix_webhook_deliveries_tried", ["endpoint_id", "next_attempt_at"], TRIED)
    _create_partial_index("ix_webhook_deliveries_delivered", ["delivered_at"], DELIVERED)


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_endpoints")


def _create_partial_index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "webhook_deliveries", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
