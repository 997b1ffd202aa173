"""Gives committed events their positions in the feed.

Ids are handed out in blocks and transactions commit in any order, so neither an id nor a time can be a place in a feed:
a reader at the place of an event would miss those that commit later with a smaller id or time. So an event gets its
position after its commit, by the process that next reads the feed. Positions are dense: 1, 2, 3 and so on.
"""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from payments_app.accounts.scratch import SCRATCH_EMAILS
from payments_app.db.base import UtcDateTime
from payments_app.db.transaction import impatient_write_transaction, read_transaction
from payments_app.errors import DatabaseBusy, LockTimeout

# Events that get a position in one transaction, and a few more: it takes some ten milliseconds, and a busy service
# makes as many in a second.
BATCH_SIZE = 1_000

# The lock's name among PostgreSQL's advisory locks of this database: the bytes of "feed".
_LOCK = int.from_bytes(b"feed")

_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)")

# Payments of `payments prove` are no events for other systems, and are removed again. The look at the user is a
# subquery, not a join: with old statistics PostgreSQL expects no such event, and began with all payments.
_WAITING = """
    payment_events e WHERE e.position IS NULL AND (
        SELECT u.email FROM payments p JOIN users u ON u.id = p.user_id WHERE p.id = e.payment_id) NOT LIKE :scratch"""

_IS_ANY_WAITING = text(f"SELECT EXISTS (SELECT 1 FROM {_WAITING})")  # noqa: S608  # nosec B608  # a text of ours

_OLDEST_WAITING = text(  # nosec B608
    f"SELECT e.created_at FROM {_WAITING} ORDER BY e.created_at, e.id LIMIT 1"  # noqa: S608
).columns(created_at=UtcDateTime)

# ``batch``: the oldest events, and with each all earlier ones of the same payment, even if they look newer because a
# clock was behind. These are found by their payment: ``coalesce`` keeps PostgreSQL from the index of waiting events,
# which it would read once for each payment if it expects few. ``moment`` rises within a payment with its version, so
# that one order fits both: time between payments, and within a payment the order in which it changed. The
# consultation's reference is written down too, because it may be set later: an event reads the same whenever it is
# read. Materialized: with statistics of a time when there were few events, PostgreSQL evaluated these anew for each
# event, and a batch took seconds.
_GIVE = text(
    f"""
    WITH oldest AS (
        SELECT e.payment_id, e.version FROM {_WAITING} ORDER BY e.created_at, e.id LIMIT :size
    ), latest AS MATERIALIZED (
        SELECT payment_id, max(version) AS version FROM oldest GROUP BY payment_id
    ), timed AS (
        SELECT e.id, e.payment_id, e.version, e.created_at,
            max(e.created_at) OVER (PARTITION BY e.payment_id ORDER BY e.version, e.created_at, e.id) AS moment
        FROM payment_events e JOIN latest l ON l.payment_id = e.payment_id AND e.version <= l.version
        WHERE coalesce(e.position, 0) = 0
    ), placed AS MATERIALIZED (
        SELECT id, row_number() OVER (ORDER BY moment, payment_id, version, created_at, id)
            + (SELECT coalesce(max(position), 0) FROM payment_events) AS position,
            (SELECT c.reference FROM payments p JOIN consultations c ON c.id = p.consultation_id
                WHERE p.id = timed.payment_id) AS reference
        FROM timed
    )
    UPDATE payment_events SET position = placed.position, consultation_reference = placed.reference
    FROM placed WHERE payment_events.id = placed.id RETURNING payment_events.id"""  # noqa: S608  # nosec B608
)


def give_positions() -> bool:
    """Give positions to up to about ``BATCH_SIZE`` committed events, oldest first; whether more may be waiting.

    It waits for no other process that is at it. If SQLite stays busy, this one goes without.
    """
    return is_any_waiting() and give_batch()


def give_batch() -> bool:
    """``give_positions``, for a caller who knows that an event waits for one."""
    try:
        return _give(BATCH_SIZE) >= BATCH_SIZE
    except (DatabaseBusy, LockTimeout):
        return True


@read_transaction
def is_any_waiting(session: Session) -> bool:
    """Whether a committed event has no position yet."""
    return bool(session.execute(_IS_ANY_WAITING, {"scratch": SCRATCH_EMAILS}).scalar())


def find_oldest_waiting(session: Session) -> datetime | None:
    """When the oldest committed event was made that has no position yet; None if all have."""
    return session.execute(_OLDEST_WAITING, {"scratch": SCRATCH_EMAILS}).scalar()


@impatient_write_transaction
def _give(session: Session, size: int) -> int:
    # A statement of its own: the next one sees what the previous holder of the lock has committed. On SQLite the write
    # lock of the transaction does the same.
    if session.get_bind().dialect.name == "postgresql" and not session.execute(_TRY_LOCK, {"lock": _LOCK}).scalar():
        return size  # somebody else is giving them
    # A statement, not loaded objects: events have no version, and nothing else of them ever changes.
    return len(session.execute(_GIVE, {"scratch": SCRATCH_EMAILS, "size": size}).all())
