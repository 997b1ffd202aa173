"""Users, consultations, payments with their related tables, and idempotency keys.

A migration must not change later: so the statuses and the predicate are written out here, not imported from the code.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)

ACTIVE = "status IN ('pending', 'processing', 'completed', 'partially_refunded') AND deleted_at IS NULL"
PAID = "status IN ('completed', 'partially_refunded', 'refunded')"
ENDED_UNPAID = "status IN ('failed', 'cancelled', 'expired')"


def upgrade() -> None:
    op.create_table(
        "id_blocks",
        sa.Column("table_name", sa.String(63), nullable=False),
        sa.Column("next_id", BIG, nullable=False),
        sa.PrimaryKeyConstraint("table_name", name="pk_id_blocks"),
        sa.CheckConstraint("next_id > 0", name=op.f("ck_id_blocks_next_id_positive")),
    )
    op.execute("INSERT INTO id_blocks (table_name, next_id) VALUES ('payments', 1), ('invoices', 1)")
    op.create_table(
        "users",
        sa.Column("id", BIG, nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("token_version", sa.Integer(), nullable=False),
        sa.Column("disabled_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_users_email_lower_case")),
        sa.CheckConstraint("role IN ('patient', 'admin', 'booking')", name=op.f("ck_users_role_known")),
    )
    op.create_table(
        "consultations",
        sa.Column("id", BIG, nullable=False, autoincrement=False),
        sa.Column("patient_id", BIG, nullable=False),
        sa.Column("fee_minor", BIG),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_consultations"),
        sa.ForeignKeyConstraint(["patient_id"], ["users.id"], name="fk_consultations_patient"),
        sa.UniqueConstraint("id", "patient_id", name="uq_consultations_id_patient"),
        sa.CheckConstraint("id > 0", name=op.f("ck_consultations_id_positive")),
        sa.CheckConstraint("fee_minor > 0", name=op.f("ck_consultations_fee_positive")),
    )
    op.create_index("ix_consultations_patient", "consultations", ["patient_id", "id"])
    _create_payments()
    _create_tables_of_payments()


def _create_payments() -> None:
    op.create_table(
        "payments",
        sa.Column("id", BIG, nullable=False, autoincrement=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("consultation_id", BIG, nullable=False),
        sa.Column("amount_minor", BIG, nullable=False),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("payment_method", sa.String(32), nullable=False),
        sa.Column("gateway", sa.String(32), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("transaction_id", sa.String(255)),
        sa.Column("receipt_url", sa.String(2048)),
        sa.Column("received_minor", BIG, nullable=False),
        sa.Column("refund_reserved_minor", BIG, nullable=False),
        sa.Column("refunded_minor", BIG, nullable=False),
        sa.Column("needs_review", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("completed_at", MOMENT),
        sa.Column("deleted_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_payments"),
        sa.ForeignKeyConstraint(
            ["consultation_id", "user_id"],
            ["consultations.id", "consultations.patient_id"],
            name="fk_payments_consultation_patient",
        ),
        sa.UniqueConstraint("gateway", "payment_method", "transaction_id", name="uq_payments_transaction"),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'completed', 'partially_refunded', 'refunded', 'failed',"
            " 'cancelled', 'expired')",
            name=op.f("ck_payments_status_known"),
        ),
        sa.CheckConstraint("version >= 0", name=op.f("ck_payments_version_not_negative")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_payments_amount_positive")),
        sa.CheckConstraint(
            "received_minor >= 0 AND refund_reserved_minor >= 0 AND refunded_minor >= 0",
            name=op.f("ck_payments_money_not_negative"),
        ),
        sa.CheckConstraint(
            "refund_reserved_minor + refunded_minor <= received_minor",
            name=op.f("ck_payments_refunds_within_received"),
        ),
        sa.CheckConstraint(
            f"NOT ({PAID}) OR (received_minor > 0 AND transaction_id IS NOT NULL AND completed_at IS NOT NULL)",
            name=op.f("ck_payments_paid_has_money"),
        ),
        sa.CheckConstraint(
            f"deleted_at IS NULL OR ({ENDED_UNPAID} AND received_minor = 0)",
            name=op.f("ck_payments_deleted_without_money"),
        ),
    )
    op.create_index(
        "uq_payments_active_consultation",
        "payments",
        ["consultation_id"],
        unique=True,
        postgresql_where=sa.text(ACTIVE),
        sqlite_where=sa.text(ACTIVE),
    )
    op.create_index("ix_payments_user_history", "payments", ["user_id", "created_at", "id"])
    op.create_index("ix_payments_history", "payments", ["created_at", "id"])
    op.create_index("ix_payments_status_history", "payments", ["status", "created_at", "id"])
    op.create_index("ix_payments_consultation_user", "payments", ["consultation_id", "user_id"])


def _create_tables_of_payments() -> None:
    op.create_table(
        "gateway_sessions",
        sa.Column("id", BIG, nullable=False),
        sa.Column("payment_id", BIG, nullable=False),
        sa.Column("gateway", sa.String(32), nullable=False),
        sa.Column("reference", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gateway_sessions"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_gateway_sessions_payment"),
        sa.UniqueConstraint("gateway", "reference", name="uq_gateway_sessions_reference"),
        sa.CheckConstraint(
            "status IN ('open', 'succeeded', 'cancelled')", name=op.f("ck_gateway_sessions_status_known")
        ),
    )
    op.create_index(
        "uq_gateway_sessions_open",
        "gateway_sessions",
        ["payment_id"],
        unique=True,
        postgresql_where=sa.text("status = 'open'"),
        sqlite_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "invoices",
        sa.Column("id", BIG, nullable=False, autoincrement=False),
        sa.Column("payment_id", BIG, nullable=False),
        sa.Column("invoice_number", sa.String(64), nullable=False),
        sa.Column("amount_minor", BIG, nullable=False),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("paid_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_invoices"),
        sa.UniqueConstraint("invoice_number", name="uq_invoices_invoice_number"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_invoices_payment"),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_invoices_amount_positive")),
        sa.CheckConstraint("status IN ('pending', 'paid', 'refunded', 'void')", name=op.f("ck_invoices_status_known")),
    )
    op.create_index("ix_invoices_payment", "invoices", ["payment_id"])
    op.create_table(
        "tax_records",
        sa.Column("id", BIG, nullable=False),
        sa.Column("payment_id", BIG, nullable=False),
        sa.Column("tax_type", sa.String(16), nullable=False),
        sa.Column("tax_rate_basis_points", sa.Integer(), nullable=False),
        sa.Column("taxable_amount_minor", BIG, nullable=False),
        sa.Column("amount_minor", BIG, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tax_records"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_tax_records_payment"),
        sa.CheckConstraint("tax_rate_basis_points BETWEEN 0 AND 10000", name=op.f("ck_tax_records_rate_a_fraction")),
        sa.CheckConstraint(
            "taxable_amount_minor > 0 AND amount_minor >= 0", name=op.f("ck_tax_records_amounts_not_negative")
        ),
    )
    op.create_index("ix_tax_records_payment", "tax_records", ["payment_id"])
    op.create_table(
        "payment_events",
        sa.Column("id", BIG, nullable=False),
        sa.Column("payment_id", BIG, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("from_status", sa.String(32)),
        sa.Column("to_status", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payment_events"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_payment_events_payment"),
    )
    op.create_index("ix_payment_events_payment", "payment_events", ["payment_id", "id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("operation", sa.String(16), nullable=False),
        sa.Column("request", sa.Text()),
        sa.Column("request_hash", sa.String(64), nullable=False),
        sa.Column("payment_id", BIG, nullable=False),
        sa.Column("refund_id", BIG),
        sa.Column("response_status", sa.SmallInteger(), nullable=False),
        sa.Column("response_body", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "key", name="pk_idempotency_keys"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_idempotency_keys_user"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_idempotency_keys_payment"),
        sa.CheckConstraint("length(request_hash) = 64", name=op.f("ck_idempotency_keys_request_hash_sha256")),
    )
    op.create_index(
        "ix_idempotency_keys_whole",
        "idempotency_keys",
        ["created_at"],
        postgresql_where=sa.text("response_body IS NOT NULL"),
        sqlite_where=sa.text("response_body IS NOT NULL"),
    )


def downgrade() -> None:
    for table in (
        "idempotency_keys",
        "payment_events",
        "tax_records",
        "invoices",
        "gateway_sessions",
        "payments",
        "consultations",
        "users",
        "id_blocks",
    ):
        op.drop_table(table)
