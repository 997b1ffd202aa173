"""Refunds that people send, and refunds that a second person approves.

The release before this one goes on: a refund by hand that it makes is settled at once, and it leaves refunds that wait
for people alone, because they are leased until the year 9999.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)

OPEN = "status IN ('pending', 'unknown')"
CHECKS = {
    "status_known": "status IN ('requested', 'pending', 'unknown', 'succeeded', 'failed')",
    "settled_when_over": "(status IN ('requested', 'pending', 'unknown')) = (settled_at IS NULL)",
    "second_person": "approved_by IS NULL OR (requested_by IS NOT NULL AND requested_by <> approved_by)",
    "by_hand_has_reference": "NOT by_hand OR status <> 'succeeded' OR transfer_reference IS NOT NULL",
}
OLD_CHECKS = {
    "status_known": "status IN ('pending', 'unknown', 'succeeded', 'failed')",
    "settled_when_over": f"({OPEN}) = (settled_at IS NULL)",
}
FOR_PEOPLE = "status = 'requested' OR by_hand AND status = 'pending'"
OLD_COLUMNS = (
    "id, payment_id, amount_minor, excess_minor, currency, status, reason, decline_reason, gateway, reference,"
    " made_elsewhere, leased_until, version, created_at, settled_at, sent_at_version"
)


def upgrade() -> None:
    # Each statement commits by itself. Cut short and run again, it goes on where it stopped.
    with _beside_the_service():
        if _is_postgresql():
            for column in _columns():
                op.add_column("refunds", column, if_not_exists=True)
            for name, promise in CHECKS.items():
                _replace_check(name, f"CHECK ({promise}) NOT VALID")
                op.execute(f"ALTER TABLE refunds VALIDATE CONSTRAINT ck_refunds_{name}")
        else:  # which changes no CHECK: a new table takes the rows over
            _copy_table(more_columns=_columns(), checks=CHECKS)
        _create_index(
            "uq_refunds_normalized_reference",
            ["gateway", "payment_method", "normalized_reference"],
            "normalized_reference IS NOT NULL",
            unique=True,
        )
        _create_index("ix_refunds_for_people", ["status", "created_at"], FOR_PEOPLE)


def downgrade() -> None:
    _require_nothing_for_people()
    with _beside_the_service():
        for index in ("ix_refunds_for_people", "uq_refunds_normalized_reference"):
            op.drop_index(index, "refunds", if_exists=True)
        if not _is_postgresql():
            _copy_table(more_columns=[], checks=OLD_CHECKS)
            return
        for name in CHECKS.keys() - OLD_CHECKS.keys():
            op.execute(f"ALTER TABLE refunds DROP CONSTRAINT IF EXISTS ck_refunds_{name}")
        for name, promise in OLD_CHECKS.items():
            _replace_check(name, f"CHECK ({promise})")
        dropped = ", ".join(f"DROP COLUMN IF EXISTS {column.name}" for column in _columns())
        op.execute(f"ALTER TABLE refunds {dropped}")


def _require_nothing_for_people() -> None:
    """The release before this one would send what nobody has approved, or count as sent what is still to be sent."""
    waiting = op.get_bind().execute(sa.text(f"SELECT count(*) FROM refunds WHERE {FOR_PEOPLE}")).scalar_one()  # noqa: S608
    if waiting:
        raise RuntimeError(
            f"Nothing was changed: {waiting} refunds wait for people. Approve or reject those that are requested, and"
            " settle or give up those by hand: refunds list --status requested, and --status pending --by-hand."
        )


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("by_hand", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("payment_method", sa.String(32)),
        sa.Column("transfer_reference", sa.String(255)),
        sa.Column("normalized_reference", sa.String(255)),
        sa.Column("requested_by", ID),
        sa.Column("approved_by", ID),
        sa.Column("approved_at", MOMENT),
    ]


def _replace_check(name: str, promise: str) -> None:
    """In one statement, so that no row is written in between without it."""
    op.execute(
        f"ALTER TABLE refunds DROP CONSTRAINT IF EXISTS ck_refunds_{name}, ADD CONSTRAINT ck_refunds_{name} {promise}"
    )


def _copy_table(*, more_columns: list[sa.Column[Any]], checks: dict[str, str]) -> None:
    op.rename_table("refunds", "old_refunds")
    op.create_table(
        "refunds",
        sa.Column("id", ID, nullable=False),
        sa.Column("payment_id", ID, nullable=False),
        sa.Column("amount_minor", ID, nullable=False),
        sa.Column("excess_minor", ID, nullable=False),
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
        sa.Column("sent_at_version", sa.Integer()),
        *more_columns,
        sa.PrimaryKeyConstraint("id", name="pk_refunds"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_refunds_payment"),
        sa.UniqueConstraint("gateway", "reference", name="uq_refunds_reference"),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_refunds_amount_positive")),
        sa.CheckConstraint("excess_minor BETWEEN 0 AND amount_minor", name=op.f("ck_refunds_excess_within_amount")),
        sa.CheckConstraint("made_elsewhere OR excess_minor = 0", name=op.f("ck_refunds_ours_fit")),
        sa.CheckConstraint("version >= 0", name=op.f("ck_refunds_version_not_negative")),
        *(sa.CheckConstraint(promise, name=op.f(f"ck_refunds_{name}")) for name, promise in checks.items()),
    )
    op.execute(f"INSERT INTO refunds ({OLD_COLUMNS}) SELECT {OLD_COLUMNS} FROM old_refunds")  # noqa: S608
    op.drop_table("old_refunds")
    op.create_index("ix_refunds_payment", "refunds", ["payment_id", "id"])
    op.create_index("ix_refunds_open", "refunds", ["leased_until"], sqlite_where=sa.text(OPEN))


def _create_index(name: str, columns: list[str], predicate: str, *, unique: bool = False) -> None:
    # CREATE INDEX CONCURRENTLY that was cut short leaves an index that nobody may use and every insert keeps up.
    op.drop_index(name, "refunds", if_exists=True)
    where = sa.text(predicate)
    op.create_index(
        name,
        "refunds",
        columns,
        unique=unique,
        postgresql_concurrently=True,
        postgresql_where=where,
        sqlite_where=where,
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
