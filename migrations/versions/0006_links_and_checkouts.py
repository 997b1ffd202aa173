"""Consultations as a booking system describes them, payment links, checkouts prepared before the call, and disputes.

Everything is added: the release before this one goes on with these tables, and leaves empty what it does not know.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)

OLD_SESSION_STATUSES = "status IN ('open', 'succeeded', 'cancelled')"
SESSION_STATUSES = "status IN ('opening', 'open', 'succeeded', 'cancelled', 'expired', 'lost')"
SESSION_REFERENCE = "status NOT IN ('open', 'succeeded') OR reference IS NOT NULL"
OPENING = "status = 'opening'"
LINK_KEYS = {
    "fk_payment_links_consultation": (["consultation_id"], ["consultations.id"]),
    "fk_payment_links_created_by": (["created_by"], ["users.id"]),
}
DISPUTE_STATUSES = "status IN ('inquiry', 'inquiry_closed', 'needs_response', 'under_review', 'won', 'lost')"
DISPUTE_IS_OPEN = "status IN ('inquiry', 'needs_response', 'under_review')"


def upgrade() -> None:
    # Each statement commits by itself: several tables locked at once would deadlock with the service, which goes on.
    # Cut short and run again, it goes on where it stopped.
    with _beside_the_service():
        _add_columns("consultations", _consultation_columns())
        _add_columns("users", [sa.Column("language", sa.String(8))])
        _add_columns("payments", _payment_columns())
        _add_columns("payment_events", [sa.Column("reference", sa.String(255))])
        _add_columns("refunds", [sa.Column("sent_at_version", sa.Integer())])
        _change_sessions()
        _create_index(
            "uq_consultations_reference", "consultations", ["reference"], "reference IS NOT NULL", unique=True
        )
        _create_index(
            "ix_consultations_registered_by", "consultations", ["registered_by", "id"], "registered_by IS NOT NULL"
        )
        _create_index(
            "uq_gateway_sessions_number",
            "gateway_sessions",
            ["payment_id", "number"],
            "number IS NOT NULL",
            unique=True,
        )
        _create_index("uq_gateway_sessions_opening", "gateway_sessions", ["payment_id"], OPENING, unique=True)
        _create_index("ix_payments_method_history", "payments", ["payment_method", "created_at", "id"], None)
        _create_index("ix_payments_completed", "payments", ["completed_at"], "completed_at IS NOT NULL")
        _create_index("ix_payments_transaction", "payments", ["transaction_id"], "transaction_id IS NOT NULL")
        if _is_postgresql():
            op.execute("ALTER TABLE gateway_sessions VALIDATE CONSTRAINT ck_gateway_sessions_status_known")
            op.execute("ALTER TABLE gateway_sessions VALIDATE CONSTRAINT ck_gateway_sessions_reference_known")
        _create_links()
        _create_disputes()


def downgrade() -> None:
    with _beside_the_service():
        # First the table that is busiest: if it cannot be locked in time, nothing has changed.
        _drop_columns("payments", _payment_columns())
        for index in ("ix_payments_transaction", "ix_payments_completed", "ix_payments_method_history"):
            op.drop_index(index, "payments", if_exists=True)
        _drop_columns("users", [sa.Column("language", sa.String(8))])
        op.drop_table("disputes", if_exists=True)
        if _is_postgresql():
            for name in LINK_KEYS:
                _drop_link_key(name)
        op.drop_table("payment_links", if_exists=True)
        for index in ("uq_gateway_sessions_opening", "uq_gateway_sessions_number"):
            op.drop_index(index, "gateway_sessions", if_exists=True)
        _change_sessions_back()
        for index in ("ix_consultations_registered_by", "uq_consultations_reference"):
            op.drop_index(index, "consultations", if_exists=True)
        _drop_columns("consultations", _consultation_columns())
        _drop_columns("refunds", [sa.Column("sent_at_version", sa.Integer())])
        _drop_columns("payment_events", [sa.Column("reference", sa.String(255))])


def _consultation_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("description", sa.String(200)),
        sa.Column("starts_at", MOMENT),
        sa.Column("reference", sa.String(64)),
        sa.Column("closed_at", MOMENT),
        sa.Column("registered_by", ID),
    ]


def _payment_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
        for name in ("is_disputed", "review_of_dispute")
    ]


def _session_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("number", sa.Integer()),
        sa.Column("amount_minor", ID),
        sa.Column("currency", sa.CHAR(3)),
        sa.Column("description", sa.String(200)),
        sa.Column("language", sa.String(8)),
        sa.Column("return_url", sa.String(2048)),
        sa.Column("expires_at", MOMENT),
        sa.Column("leased_until", MOMENT),
        sa.Column("refreshed_at", MOMENT),
    ]


def _add_columns(table: str, columns: list[sa.Column[Any]]) -> None:
    for column in columns:
        op.add_column(table, column, **_if_not_there())


def _drop_columns(table: str, columns: list[sa.Column[Any]]) -> None:
    if _is_postgresql():
        dropped = (f"DROP COLUMN IF EXISTS {column.name}" for column in columns)
        op.execute(f"ALTER TABLE {table} {', '.join(dropped)}")
        return
    for column in reversed(columns):
        op.drop_column(table, column.name)


def _change_sessions() -> None:
    if not _is_postgresql():  # which changes no column and no CHECK: a new table takes the rows over
        _copy_sessions(more_columns=_session_columns(), statuses=SESSION_STATUSES, reference_is_optional=True)
        return
    _add_columns("gateway_sessions", _session_columns())
    op.alter_column("gateway_sessions", "reference", nullable=True)
    for name, promise in (("status_known", SESSION_STATUSES), ("reference_known", SESSION_REFERENCE)):
        _replace_check(name, f"CHECK ({promise}) NOT VALID")


def _replace_check(name: str, promise: str) -> None:
    """In one statement, so that no row is written in between without it."""
    op.execute(
        f"ALTER TABLE gateway_sessions DROP CONSTRAINT IF EXISTS ck_gateway_sessions_{name},"
        f" ADD CONSTRAINT ck_gateway_sessions_{name} {promise}"
    )


def _change_sessions_back() -> None:
    # Checkouts that the release before this one has no word for: nobody can pay by them, or nobody knows them.
    op.execute("DELETE FROM gateway_sessions WHERE reference IS NULL")
    op.execute("UPDATE gateway_sessions SET status = 'cancelled' WHERE status NOT IN ('open', 'succeeded')")
    if not _is_postgresql():
        _copy_sessions(more_columns=[], statuses=OLD_SESSION_STATUSES, reference_is_optional=False)
        return
    op.execute("ALTER TABLE gateway_sessions DROP CONSTRAINT IF EXISTS ck_gateway_sessions_reference_known")
    _replace_check("status_known", f"CHECK ({OLD_SESSION_STATUSES})")
    op.alter_column("gateway_sessions", "reference", nullable=False)
    _drop_columns("gateway_sessions", _session_columns())


def _copy_sessions(*, more_columns: list[sa.Column[Any]], statuses: str, reference_is_optional: bool) -> None:
    op.rename_table("gateway_sessions", "old_gateway_sessions")
    op.create_table(
        "gateway_sessions",
        sa.Column("id", ID, nullable=False),
        sa.Column("payment_id", ID, nullable=False),
        sa.Column("gateway", sa.String(32), nullable=False),
        sa.Column("reference", sa.String(255), nullable=reference_is_optional),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        *more_columns,
        sa.PrimaryKeyConstraint("id", name="pk_gateway_sessions"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_gateway_sessions_payment"),
        sa.UniqueConstraint("gateway", "reference", name="uq_gateway_sessions_reference"),
        sa.CheckConstraint(statuses, name="status_known"),
        *([sa.CheckConstraint(SESSION_REFERENCE, name="reference_known")] if reference_is_optional else []),
    )
    names = "id, payment_id, gateway, reference, status, created_at, updated_at"
    op.execute(f"INSERT INTO gateway_sessions ({names}) SELECT {names} FROM old_gateway_sessions")  # noqa: S608
    op.drop_table("old_gateway_sessions")
    is_open = sa.text("status = 'open'")
    op.create_index("uq_gateway_sessions_open", "gateway_sessions", ["payment_id"], unique=True, sqlite_where=is_open)


def _create_links() -> None:
    op.create_table(
        "payment_links",
        sa.Column("id", ID, nullable=False),
        sa.Column("consultation_id", ID, nullable=False),
        sa.Column("token_hash", sa.CHAR(64), nullable=False),
        sa.Column("return_url", sa.String(2048)),
        sa.Column("created_by", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_payment_links"),
        *([] if _is_postgresql() else (sa.ForeignKeyConstraint(*key, name=name) for name, key in LINK_KEYS.items())),
        sa.UniqueConstraint("token_hash", name="uq_payment_links_token_hash"),
        sa.CheckConstraint("expires_at > created_at", name="lives"),
        if_not_exists=True,
    )
    if _is_postgresql():
        for name, ((column,), (target,)) in LINK_KEYS.items():
            _drop_link_key(name)
            op.execute(
                f"ALTER TABLE payment_links ADD CONSTRAINT {name} FOREIGN KEY ({column})"
                f" REFERENCES {target.replace('.', ' (')})"
            )
    op.create_index("ix_payment_links_consultation", "payment_links", ["consultation_id", "id"], if_not_exists=True)


def _drop_link_key(name: str) -> None:
    """One by one: a key locks both of its tables, and both keys at once would lock three."""
    op.execute(f"ALTER TABLE IF EXISTS payment_links DROP CONSTRAINT IF EXISTS {name}")


def _create_disputes() -> None:
    op.create_table(
        "disputes",
        sa.Column("id", ID, nullable=False),
        sa.Column("payment_id", ID, nullable=False),
        sa.Column("gateway", sa.String(32), nullable=False),
        sa.Column("reference", sa.String(255), nullable=False),
        sa.Column("amount_minor", ID, nullable=False),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("reason", sa.String(64)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("due_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_disputes"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_disputes_payment"),
        sa.UniqueConstraint("gateway", "reference", name="uq_disputes_reference"),
        sa.CheckConstraint("amount_minor > 0", name="amount_positive"),
        sa.CheckConstraint(DISPUTE_STATUSES, name="status_known"),
        if_not_exists=True,
    )
    op.create_index("ix_disputes_payment", "disputes", ["payment_id", "id"], if_not_exists=True)
    where = sa.text(DISPUTE_IS_OPEN)
    op.create_index(
        "ix_disputes_open", "disputes", ["id"], if_not_exists=True, postgresql_where=where, sqlite_where=where
    )


def _create_index(name: str, table: str, columns: list[str], predicate: str | None, *, unique: bool = False) -> None:
    # CREATE INDEX CONCURRENTLY that was cut short leaves an index that nobody may use and every insert keeps up.
    op.drop_index(name, table, if_exists=True)
    where = None if predicate is None else sa.text(predicate)
    op.create_index(
        name, table, columns, unique=unique, postgresql_concurrently=True, postgresql_where=where, sqlite_where=where
    )


def _if_not_there() -> dict[str, bool]:
    """SQLite, which has no such words, has the whole migration in one transaction."""
    return {"if_not_exists": True} if _is_postgresql() else {}


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
