"""One transfer by hand pays one payment, in whatever spelling its reference was typed.

What two payments share already is reported, not refused: the earlier one keeps the spelling that all share, the later
one goes without, and staff see to it. A migration is history: how spellings are compared is written out here.
"""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Payments read at a time: a million of them must not sit in memory.
BATCH_SIZE = 1_000

LONGEST = 255
INDEX = "uq_payments_normalized_reference"

IGNORED_CATEGORIES = {"Zs", "Zl", "Zp", "Cc", "Cf", "Pd"}
IGNORED = {*map(chr, [0x2212, 0x02D7, 0x2043, 0x2027, 0x2800, 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5])} | {
    *map(chr, [*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
}

NEXT_BATCH = sa.text(
    """
    SELECT id, payment_method, transaction_id FROM payments
    WHERE id > :after_id AND gateway = 'manual' AND transaction_id IS NOT NULL ORDER BY id LIMIT :size
    """
)
HELD_BY = sa.text(
    """
    SELECT id, transaction_id FROM payments
    WHERE gateway = 'manual' AND payment_method = :method AND normalized_reference = :reference
    """
)
# No version rises: nothing that a verb of the payment reads or writes changes.
FILL_IN = sa.text("UPDATE payments SET normalized_reference = :reference WHERE id = :id")


def upgrade() -> None:
    # What follows is committed bit by bit: cut short and run again, it goes on where it stopped.
    op.add_column("payments", sa.Column("normalized_reference", sa.String(LONGEST)), **_if_not_there())
    with _beside_the_service():
        # Before it is filled in, so that it judges what is.
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
        _fill_in()


def downgrade() -> None:
    op.drop_index(INDEX, "payments", if_exists=True)
    op.drop_column("payments", "normalized_reference")


def _fill_in() -> None:
    last_id, without = 0, 0
    while batch := op.get_bind().execute(NEXT_BATCH, {"after_id": last_id, "size": BATCH_SIZE}).all():
        without += sum(not _fill_in_one(payment) for payment in batch)
        last_id = batch[-1].id
    if without:
        print(f"{without} payments by hand go without a reference that is compared: see above, and docs/operations.md")


def _fill_in_one(payment: Any) -> bool:
    reference = _normalized(payment.transaction_id)
    if not 0 < len(reference) <= LONGEST:
        print(f"payment {payment.id}: nothing to compare in the reference {payment.transaction_id!a}")
        return False
    asked = {"method": payment.payment_method, "reference": reference}
    holder = op.get_bind().execute(HELD_BY, asked).first()
    if holder is not None and holder.id != payment.id:
        print(
            f"payment {payment.id}: the reference {payment.transaction_id!a} is that of payment {holder.id}"
            f" ({holder.transaction_id!a}): one transfer has paid both"
        )
        return False
    op.get_bind().execute(FILL_IN, {"id": payment.id, "reference": reference})
    return True


def _normalized(reference: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", reference).casefold())
    kept = (c for c in folded if unicodedata.category(c) not in IGNORED_CATEGORIES and c not in IGNORED)
    return unicodedata.normalize("NFKC", "".join(kept))


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
