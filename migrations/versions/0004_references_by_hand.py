"""One transfer by hand pays one payment, in any spelling of its reference.

If two payments share a reference already, the migration reports them and goes on: the earlier one gets the normalized
reference, the later one gets none, and staff decide. A migration must not change later: so the comparison is written
out here.
"""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Payments per query: a million of them must not be held in memory.
BATCH_SIZE = 1_000

# Rows between two progress messages.
REPORT_EVERY = 100_000

MOMENT = sa.DateTime(timezone=True)

LONGEST = 255
# Characters of a reference that are printed.
SHOWN = 60
INDEX = "uq_payments_normalized_reference"
ALONE = "ix_payments_reference_alone"

IGNORED_CATEGORIES = {"Zs", "Zl", "Zp", "Cc", "Cf", "Pd"}
IGNORED = {
    *map(chr, [0x2212, 0x2796, 0x02D7, 0x2043, 0x2027, 0x2800, 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065])
} | {*map(chr, [*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)])}

# In order of creation: if two share a reference, the earlier one keeps it.
NEXT_BATCH = (
    sa.text(
        """
        SELECT id, created_at, payment_method, transaction_id FROM payments
        WHERE (created_at, id) > (:created_at, :id) AND gateway = 'manual' AND transaction_id IS NOT NULL
        ORDER BY created_at, id LIMIT :size
        """
    )
    .columns(created_at=MOMENT)
    .bindparams(sa.bindparam("created_at", type_=MOMENT))
)
# No version changes, because no verb of the payment reads or writes this column.
FILL_IN = sa.text(
    """
    UPDATE payments SET normalized_reference = :reference WHERE id = :id AND NOT EXISTS (
        SELECT 1 FROM payments AS other WHERE other.gateway = 'manual' AND other.payment_method = :method
        AND other.normalized_reference = :reference AND other.id <> :id)
    """
)
HELD_BY = sa.text(
    """
    SELECT id, transaction_id FROM payments
    WHERE gateway = 'manual' AND payment_method = :method AND normalized_reference = :reference
    """
)


def upgrade() -> None:
    # The following steps commit one by one: if interrupted, run it again, and it continues.
    op.add_column("payments", sa.Column("normalized_reference", sa.String(LONGEST)), **_if_not_there())
    with _without_blocking_writes():
        # The index comes before the values, so that it checks each of them.
        op.drop_index(INDEX, "payments", if_exists=True)
        columns = ["gateway", "payment_method", "normalized_reference"]
        where = sa.text("normalized_reference IS NOT NULL")
        op.create_index(
            INDEX,
            "payments",
            columns,
            unique=True,
            postgresql_concurrently=True,
            postgresql_where=where,
            sqlite_where=where,
        )
        op.drop_index(ALONE, "payments", if_exists=True)
        alone = sa.text("gateway = 'manual' AND transaction_id IS NOT NULL AND normalized_reference IS NULL")
        op.create_index(
            ALONE,
            "payments",
            ["payment_method", "id"],
            postgresql_concurrently=True,
            postgresql_where=alone,
            sqlite_where=alone,
        )
        _fill_in()


def downgrade() -> None:
    op.drop_index(ALONE, "payments", if_exists=True)
    op.drop_index(INDEX, "payments", if_exists=True)
    op.drop_column("payments", "normalized_reference")


def _fill_in() -> None:
    looked_at = without = 0
    position = {"created_at": datetime(1970, 1, 1, tzinfo=UTC), "id": 0}
    while batch := op.get_bind().execute(NEXT_BATCH, {**position, "size": BATCH_SIZE}).all():
        without += sum(not _fill_in_one(payment) for payment in batch)
        looked_at += len(batch)
        position = {"created_at": batch[-1].created_at, "id": batch[-1].id}
        if looked_at % REPORT_EVERY == 0:
            print(f"{looked_at} payments by hand compared")
    if without:
        print(f"{without} payments by hand go without a reference that is compared: see above, and docs/operations.md")


def _fill_in_one(payment: Any) -> bool:
    reference, shown = _normalized(payment.transaction_id), f"{payment.transaction_id[:SHOWN]!a}"
    if not 0 < len(reference) <= LONGEST:
        reason = "too long once written out" if reference else "nothing to compare"
        print(f"payment {payment.id}: {reason} in the reference {shown}")
        return False
    parameters = {"id": payment.id, "method": payment.payment_method, "reference": reference}
    try:
        is_filled_in = op.get_bind().execute(FILL_IN, parameters).rowcount == 1
    except sa.exc.IntegrityError:  # another payment was confirmed with it at the same moment
        if not _is_postgresql():  # on SQLite there are no other writers during a migration
            raise
        is_filled_in = False
    if is_filled_in:
        return True
    holder = op.get_bind().execute(HELD_BY, parameters).first()
    of = f"that of payment {holder.id} ({holder.transaction_id[:SHOWN]!a})" if holder else "another payment's"
    print(f"payment {payment.id}: the reference {shown} is {of}: one transfer has paid both")
    return False


def _normalized(reference: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", reference).casefold())
    kept = (c for c in folded if unicodedata.category(c) not in IGNORED_CATEGORIES and c not in IGNORED)
    return unicodedata.normalize("NFKC", "".join(kept))


def _if_not_there() -> dict[str, bool]:
    """IF NOT EXISTS on PostgreSQL. SQLite does not support it, but runs the whole migration in one transaction."""
    return {"if_not_exists": True} if _is_postgresql() else {}


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
