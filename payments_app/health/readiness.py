"""Is the last line of defence in place? Asked of the live database, which somebody may have altered.

A payment may be taken only where the database itself refuses a second one, and a refund only where it refuses too much.
"""

from collections.abc import Sequence

from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

from payments_app.database import read_transaction
from payments_app.payments.models import ACTIVE_PREDICATE, Payment

# M3's CHECKs, without blanks and brackets, which each database writes in its own way.
CHECKS = {
    "ck_payments_refunds_within_received": "refund_reserved_minor+refunded_minor<=received_minor",
    "ck_payments_money_not_negative": "received_minor>=0ANDrefund_reserved_minor>=0ANDrefunded_minor>=0",
}

# Planned, never run. Both databases look for the index that this names: it has to be there, whole, unique, and over all
# active payments.
_NAMES_THE_INDEX = text(
    "EXPLAIN INSERT INTO payments (id, consultation_id) VALUES (1, 1)"
    f" ON CONFLICT (consultation_id) WHERE {ACTIVE_PREDICATE} DO NOTHING"
)


@read_transaction
def revision(session: Session) -> str | None:
    """The migration that the database is at; None before the first."""
    return MigrationContext.configure(session.connection()).get_current_revision()


@read_transaction
def require_index(session: Session) -> None:
    """Look for the index that allows one active payment per consultation (M1).

    Raises:
        NotReady: there is no such index, or no such table (503).
    """
    session.execute(_NAMES_THE_INDEX)


@read_transaction
def missing_checks(session: Session) -> Sequence[str]:
    """The CHECKs of M3 that are missing, altered, or were never held against the rows that were there."""
    inspector = inspect(session.connection())
    if not inspector.has_table(Payment.__tablename__):
        return list(CHECKS)
    found = {
        check["name"]: "".join(character for character in check["sqltext"] if character not in " ()")
        for check in inspector.get_check_constraints(Payment.__tablename__)
        if not check.get("dialect_options", {}).get("not_valid")
    }
    return [name for name, promise in CHECKS.items() if found.get(name) != promise]
