"""Translates database errors and broken constraints into the application's errors."""

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
    ReferenceTaken,
    TransactionAlreadyUsed,
    TransferAlreadyUsed,
    UserExists,
    VersionConflict,
)
from payments_app.observability import metrics

# Class 08 is connection exceptions, 53 insufficient resources, 57 operator intervention (shutdown, cancel).
_UNAVAILABLE_SQLSTATE_CLASSES = frozenset({"08", "53", "57"})
# No unique constraint matches the ON CONFLICT target (42P10), no such table (42P01) or column (42703): the unique index
# is missing, or the migrations have not run. The role lacks a privilege (42501): somebody has revoked it.
_INSUFFICIENT_PRIVILEGE = "42501"
_NOT_READY_SQLSTATES = frozenset({"42P10", "42P01", "42703", _INSUFFICIENT_PRIVILEGE})
# SQLite's primary result codes. A code in neither set, such as a syntax error, is a bug of this service.
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
    """A competing transaction was first: try again on a fresh session, which sees its changes.

    ``when_all_are_lost`` is the error to raise if the last attempt fails too.
    """

    def __init__(self, when_all_are_lost: AppError | None = None) -> None:
        super().__init__()
        self.when_all_are_lost = when_all_are_lost or DatabaseBusy()


class ConnectionLost(RetryTransaction):
    """The connection broke, or was cut by our deadline. The transaction may have committed, or may commit later.

    The next attempt finds its key or version if it has, and reaches a database that has restarted or failed over. A
    transaction that commits later holds its locks until then, and a statement that runs later finds what we did.
    """


class LockNotGranted(RetryTransaction):
    """Another transaction kept a lock during one whole wait. The next wait may be longer than the lock."""


class IdempotencyKeyConflict(RetryTransaction):
    """A request with the same idempotency key committed first."""


# SQLSTATEs: serialization failure, deadlock, lock not available (within lock_timeout).
_RETRY_SQLSTATES = {"40001": RetryTransaction, "40P01": RetryTransaction, "55P03": LockNotGranted}


# The meaning of each broken constraint. PostgreSQL names the constraint. SQLite lists only the columns, and nothing for
# a foreign key: so both forms are here, and a test compares them with the migrated schema.
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
    (
        "uq_refunds_normalized_reference",
        "UNIQUE constraint failed: refunds.gateway, refunds.payment_method, refunds.normalized_reference",
        TransferAlreadyUsed,
    ),
    # An earlier attempt of the same request, whose connection was lost, commits at this moment: no other has this id.
    ("pk_payments", "UNIQUE constraint failed: payments.id", RetryTransaction),
    ("uq_consultations_reference", "UNIQUE constraint failed: consultations.reference", ReferenceTaken),
    ("uq_users_email", "UNIQUE constraint failed: users.email", UserExists),
    ("uq_users_normalized_email", "UNIQUE constraint failed: users.normalized_email", UserExists),
    # The only parent row that the API ever changes is a consultation's patient.
    ("fk_payments_consultation_patient", "FOREIGN KEY constraint failed", ConsultationHasPayments),
)


def classify_error(error: Exception) -> Exception:
    """The application error for a database error. An unknown one is a bug, and is returned unchanged (500)."""
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
    """The error of ``BROKEN_CONSTRAINTS`` for the broken constraint; the error itself if it is not listed."""
    diagnosis = getattr(error.orig, "diag", None)
    name = diagnosis.constraint_name if diagnosis is not None else None
    for constraint, sqlite_text, meaning in BROKEN_CONSTRAINTS:
        if name == constraint or (diagnosis is None and str(error.orig) == sqlite_text):
            return meaning()
    return error


def is_insufficient_privilege(error: BaseException) -> bool:
    """Whether the database role lacks a privilege: for a database error, or for the ``NotReady`` that it became."""
    cause = error.__cause__ if isinstance(error, NotReady) else error
    return getattr(getattr(cause, "orig", None), "sqlstate", None) == _INSUFFICIENT_PRIVILEGE


def _classify_dbapi_error(error: DBAPIError) -> Exception:
    if isinstance(error.orig, sqlite3.Error):
        return _classify_sqlite_error(error, error.orig)
    state = getattr(error.orig, "sqlstate", None)
    if state in _RETRY_SQLSTATES:
        return _RETRY_SQLSTATES[state](DatabaseBusy())
    if state in _NOT_READY_SQLSTATES:
        return NotReady()
    if error.connection_invalidated:
        return ConnectionLost(DatabaseUnavailable())  # the pool has dropped its connections
    if state is None:  # no response from a server at all
        return DatabaseUnavailable() if isinstance(error, OperationalError) else error
    return DatabaseUnavailable() if state[:2] in _UNAVAILABLE_SQLSTATE_CLASSES else error


def _classify_sqlite_error(error: DBAPIError, cause: sqlite3.Error) -> Exception:
    primary_code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if primary_code in _SQLITE_BUSY:
        return LockNotGranted(DatabaseBusy())
    if primary_code in _SQLITE_UNAVAILABLE:
        return DatabaseUnavailable()
    text = str(cause)
    if "ON CONFLICT clause does not match" in text or text.startswith(("no such table", "no such column")):
        return NotReady()
    return error
