"""One e-mail address is one user, in any spelling.

Existing addresses stay unchanged, because the previous release finds users by them and runs during the migration. A new
column gets the normalized form, by which the next release finds users. If two users share an address already, the
migration reports them and goes on: one of them gets the normalized form, the other gets none, and each still logs in by
their own spelling. A migration must not change later: so the comparison is written out here.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import idna
import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Users per batch: a million of them must not be held in memory, nor locked at once.
BATCH_SIZE = 1_000

LONGEST = 254
INDEX = "uq_users_normalized_email"

NEXT_BATCH = sa.text(
    "SELECT id, email FROM users WHERE id > :after_id AND normalized_email IS NULL ORDER BY id LIMIT :size"
)
ARE_NORMALIZED = sa.text(
    """
    UPDATE users SET normalized_email = email WHERE id IN :ids
    AND NOT EXISTS (SELECT 1 FROM users AS holder WHERE holder.normalized_email = users.email)
    """
).bindparams(sa.bindparam("ids", expanding=True))
HELD_BY = sa.text("SELECT id, email FROM users WHERE normalized_email = :email")
FILL_IN = sa.text("UPDATE users SET normalized_email = :email WHERE id = :id")


def upgrade() -> None:
    # The following steps commit one by one: if interrupted, run it again, and it continues.
    op.add_column("users", sa.Column("normalized_email", sa.String(LONGEST)), **_if_not_there())
    with _without_blocking_writes():
        # The index comes before the values, so that it checks each of them. With a predicate the column is no key for
        # PostgreSQL: an update of it does not block inserts of the user's payments.
        op.drop_index(INDEX, "users", if_exists=True)
        where = sa.text("normalized_email IS NOT NULL")
        op.create_index(
            INDEX,
            "users",
            ["normalized_email"],
            unique=True,
            postgresql_concurrently=True,
            postgresql_where=where,
            sqlite_where=where,
        )
        _fill_in()


def downgrade() -> None:
    op.drop_index(INDEX, "users", if_exists=True)
    op.drop_column("users", "normalized_email")


def _fill_in() -> None:
    spelled_otherwise = []
    last_id = 0
    while batch := op.get_bind().execute(NEXT_BATCH, {"after_id": last_id, "size": BATCH_SIZE}).all():
        as_they_are = [user.id for user in batch if _normalized(user.email) == user.email]
        op.get_bind().execute(ARE_NORMALIZED, {"ids": as_they_are})
        spelled_otherwise += [user for user in batch if user.id not in set(as_they_are)]
        last_id = batch[-1].id
    # Last: of two users with one address, the user whose address is normalized already keeps it.
    without = sum(not _fill_in_one(user) for user in spelled_otherwise)
    if without:
        print(f"{without} users log in by one spelling of their e-mail address only: see above, and docs/operations.md")


def _fill_in_one(user: Any) -> bool:
    email = _normalized(user.email)
    if len(email) > LONGEST:
        print(f"user {user.id}: the e-mail address {json.dumps(user.email)} is too long to compare")
        return False
    holder = op.get_bind().execute(HELD_BY, {"email": email}).first()
    if holder is not None:
        print(
            f"user {user.id}: the e-mail address {json.dumps(user.email)} is that of user {holder.id}"
            f" ({json.dumps(holder.email)}) in another spelling"
        )
        return False
    op.get_bind().execute(FILL_IN, {"id": user.id, "email": email})
    return True


def _normalized(email: str) -> str:
    local, at, domain = re.sub(r"[\x00\ud800-\udfff]", "\ufffd", email).rpartition("@")
    return f"{_folded(local)}{at}{_ascii_domain(domain)}"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold().lower())


def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return _folded(domain)


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
