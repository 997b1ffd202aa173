"""What a broken constraint or an error of the database means to the caller."""

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from payments_app.errors import (
    ActivePaymentExists,
    AppError,
    ConsultationHasPayments,
    DatabaseBusy,
    DatabaseUnavailable,
    NotReady,
    TransactionAlreadyUsed,
    VersionConflict,
)
from payments_app.observability import metrics

# SQLSTATEs of a race lost at the level of the transaction: serialization failure, deadlock, lock not available.
_RETRY_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
# Class 08 is connection exceptions, 53 insufficient resources, 57 operator intervention (shutdown, cancel).
_UNAVAILABLE_SQLSTATE_CLASSES = frozenset({"08", "53", "57"})
# No unique constraint matches the ON CONFLICT target (42P10), no such table (42P01) or column (42703): the last line
# of defence is not there, or the migrations are not.
_NOT_READY_SQLSTATES = frozenset({"42P10", "42P01", "42703"})
# SQLite's primary result codes. Whatever is in neither set, a syntax error for one, is our bug.
_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)


class RetryTransaction(Exception):
    """Somebody else was first: worth another attempt on a fresh session, which sees what they did."""

    def __init__(self, when_all_are_lost: AppError | None = None) -> None:
        super().__init__()
        self.when_all_are_lost = when_all_are_lost or DatabaseBusy()


class IdempotencyKeyConflict(RetryTransaction):
    """The idempotency key was committed by a twin in the meantime."""


# What a broken constraint means. PostgreSQL names the constraint; SQLite only lists the columns, or, of a foreign
# key, nothing: so both are here, and a test compares them with the migrated schema.
BROKEN_CONSTRAINTS: tuple[tuple[str, str, type[Exception]], ...] = (
    ("uq_payments_active_consultation", "UNIQUE constraint failed: payments.consultation_id", ActivePaymentExists),
    (
        "pk_idempotency_keys",
        "UNIQUE constraint failed: idempotency_keys.user_id, idempotency_keys.key",
        IdempotencyKeyConflict,
    ),
    (
        "uq_payments_transaction",
        "UNIQUE constraint failed: payments.gateway, payments.payment_method, payments.transaction_id",
        TransactionAlreadyUsed,
    ),
    (
        "uq_payments_normalized_reference",
        "UNIQUE constraint failed: payments.gateway, payments.payment_method, payments.normalized_reference",
        TransactionAlreadyUsed,
    ),
    # The only parent row that the API ever changes is a consultation's patient.
    ("fk_payments_consultation_patient", "FOREIGN KEY constraint failed", ConsultationHasPayments),
)


def classify_error(error: Exception) -> Exception:
    """What an error of the database means to the caller; an unknown one is our bug and stays itself (500)."""
    if isinstance(error, RetryTransaction):
        return error
    if isinstance(error, StaleDataError):
        metrics.VERSION_CONFLICTS.labels("race").inc()
        return RetryTransaction(VersionConflict.lost_every_race())
    if isinstance(error, PoolTimeout):
        return DatabaseBusy()
    if isinstance(error, IntegrityError):
        return constraint_meaning(error)
    if isinstance(error, DBAPIError):
        return _classify_dbapi_error(error)
    return error


def constraint_meaning(error: IntegrityError) -> Exception:
    """The meaning of the constraint that an insert or update broke; the error itself where none is known."""
    diagnosis = getattr(error.orig, "diag", None)
    name = diagnosis.constraint_name if diagnosis is not None else None
    for constraint, sqlite_text, meaning in BROKEN_CONSTRAINTS:
        if name == constraint or (diagnosis is None and str(error.orig) == sqlite_text):
            return meaning()
    return error


def _classify_dbapi_error(error: DBAPIError) -> Exception:
    if isinstance(error.orig, sqlite3.Error):
        return _classify_sqlite_error(error, error.orig)
    state = getattr(error.orig, "sqlstate", None)
    if state in _RETRY_SQLSTATES:
        return RetryTransaction(DatabaseBusy())
    if state in _NOT_READY_SQLSTATES:
        return NotReady()
    if error.connection_invalidated:
        # The pool has thrown its connections away; whatever was sent either committed, and its key or version will
        # be found, or it did not. A database that restarted is so reached by the next attempt.
        return RetryTransaction(DatabaseUnavailable())
    if state is None:  # no answer from a server at all
        return DatabaseUnavailable() if isinstance(error, OperationalError) else error
    return DatabaseUnavailable() if state[:2] in _UNAVAILABLE_SQLSTATE_CLASSES else error


def _classify_sqlite_error(error: DBAPIError, cause: sqlite3.Error) -> Exception:
    primary_code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if primary_code in _SQLITE_BUSY:
        return RetryTransaction(DatabaseBusy())
    if primary_code in _SQLITE_UNAVAILABLE:
        return DatabaseUnavailable()
    text = str(cause)
    if "ON CONFLICT clause does not match" in text or text.startswith(("no such table", "no such column")):
        return NotReady()
    return error
