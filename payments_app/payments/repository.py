"""Loads payments for display and for change. Each function is one transaction, or part of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from sqlalchemy import ColumnElement, Select, Tuple, and_, bindparam, cast, func, literal, null, select, tuple_
from sqlalchemy.orm import Session, joinedload
from sqlalchemy.orm.attributes import set_committed_value

from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, User
from payments_app.accounts.repository import USER_STATE, UserState, require_valid, require_valid_credential
from payments_app.consultations.models import Consultation
from payments_app.db.row_waits import enter_queue
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import FirstAttempt, read_transaction
from payments_app.errors import PaymentNotFound, PreconditionFailed, TransactionAlreadyUsed, VersionConflict
from payments_app.gateways.references import normalized_reference
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.locking import locks
from payments_app.observability import metrics
from payments_app.payments.models.event import AuditContext, PaymentEvent
from payments_app.payments.models.payment import REFERENCE_ALONE, Payment
from payments_app.payments.models.refund import Refund

# Makes the response from the changed payment.
Render = Callable[[Payment], StoredResponse]


@dataclass(frozen=True, slots=True)
class Conditions:
    """The version that the caller expects: by If-Match, by ``expected_version``, by both or by neither."""

    if_match: Callable[[int], bool] | None = None
    expected_version: int | None = None

    def require(self, payment: Payment) -> None:
        """Check the expectations against the payment's version.

        Raises:
            PreconditionFailed: If-Match names another version, or none (412).
            VersionConflict: ``expected_version`` is not the payment's version (409).
        """
        if self.if_match is not None and not self.if_match(payment.version):
            metrics.VERSION_CONFLICTS.labels("expectation").inc()
            raise PreconditionFailed(current_version=payment.version)
        if self.expected_version is not None and self.expected_version != payment.version:
            metrics.VERSION_CONFLICTS.labels("expectation").inc()
            raise VersionConflict.stale_expectation(
                expected_version=self.expected_version, current_version=payment.version
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCommand:
    """A requested change of a payment, with its caller, idempotent request, audit context and conditions."""

    payment_id: int
    caller: Caller
    request: IdempotentRequest
    context: AuditContext
    conditions: Conditions = field(default_factory=Conditions)


@read_transaction
def get(session: Session, payment_id: int, *, caller: Caller) -> Payment:
    """A payment with its invoices, tax records and refunds.

    Raises:
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient (403).
    """
    return _owned(session, with_related().options(joinedload(Payment.tax_records)), payment_id, caller)


@read_transaction
def get_status(session: Session, payment_id: int) -> str:
    """The present status of a payment that is known to exist, soft-deleted or not."""
    return session.scalars(select(Payment.status).where(Payment.id == payment_id)).one()


@read_transaction
def count_references_not_compared(session: Session) -> int:
    """The number of payments by hand whose reference no constraint compares (``REFERENCE_ALONE``)."""
    return session.scalars(select(func.count()).select_from(Payment).where(REFERENCE_ALONE)).one()


def require_unused_reference(session: Session, payment: Payment, reference: str) -> None:
    """Check a reference against those that no constraint compares: one more statement, for payments by hand only.

    The rows compared here are old and no longer change, so this look-up is not a race. The unique index compares all
    others.

    Raises:
        TransactionAlreadyUsed: the reference paid for another payment, in any spelling (409).
    """
    normalized = normalized_reference(payment.gateway, reference)
    if normalized is None:
        return
    others = (Payment.payment_method == payment.payment_method, Payment.id != payment.id)
    for used in session.scalars(select(Payment.transaction_id).where(REFERENCE_ALONE, *others)):
        if used is not None and normalized_reference(payment.gateway, used) == normalized:
            raise TransactionAlreadyUsed


def keyset(position: tuple[datetime, int]) -> Tuple:
    """The position (created_at, id) as SQL, in the columns' own types."""
    created_at, payment_id = position
    return tuple_(literal(created_at, Payment.created_at.type), literal(payment_id, Payment.id.type))


@read_transaction
def list_events(session: Session, payment_id: int, *, caller: Caller) -> Sequence[PaymentEvent]:
    """The payment's audit trail, oldest first.

    Raises:
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient (403).
    """
    # One statement. The outer join tells a payment without events from a payment that does not exist.
    found = session.execute(
        select(Payment.user_id, Payment.consultation_id, _registered_by(caller).label("registered_by"), PaymentEvent)
        .outerjoin(PaymentEvent, PaymentEvent.payment_id == Payment.id)
        .where(Payment.id == payment_id, Payment.deleted_at.is_(None))
        .order_by(PaymentEvent.id)
    ).all()
    if not found:
        raise PaymentNotFound
    first = found[0]
    caller.require_access(
        PaymentNotFound,
        patient_id=first.user_id,
        consultation_id=first.consultation_id,
        registered_by=first.registered_by,
    )
    return [event for *_owner, event in found if event is not None]


def flush_and_store(session: Session, payment: Payment, change: ChangeCommand, render: Render) -> StoredResponse:
    """Flush the change, and store the response under its key."""
    # The one flush of this effect: it raises the version, or StaleDataError if another writer was first.
    session.flush()
    response = render(payment)
    idempotency.store(session, change.request, response, payment_id=payment.id, at=change.context.at)
    return response


def get_owned(session: Session, payment_id: int, caller: Caller) -> Payment:
    """A payment with the rows that its verbs need, for a caller who may change it.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient (403).
    """
    require_valid(session, caller)
    return get_readable(session, payment_id, caller)


def get_readable(session: Session, payment_id: int, caller: Caller) -> Payment:
    """A payment with its invoices and refunds, not locked, for a caller who may see it.

    Raises:
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient, or another system registered its consultation (403).
    """
    return _owned(session, with_related(), payment_id, caller)


def read_for_change(
    session: Session, change: ChangeCommand, *, with_notes: bool = False
) -> tuple[Payment, IdempotencyKey | None]:
    """``get_owned``, and the request's key if it was used; of a user's request, all in one statement.

    ``with_notes``: also what a refund needs to be given its credit note.

    Raises:
        NotAuthenticated, PaymentNotFound, Forbidden: as ``get_owned`` (401, 404, 403).
    """
    caller = change.caller
    require_valid_credential(session, caller)
    asked = {"payment_id": change.payment_id, "user_id": caller.user_id, "key": change.request.key}
    row = session.execute(_for_change(with_notes=with_notes), asked).unique().one_or_none()
    if row is None:
        require_valid(session, caller)
        raise PaymentNotFound
    payment, key, *user = row
    caller.require_unchanged(UserState.of(user))
    caller.require_access(PaymentNotFound, patient_id=payment.user_id, consultation_id=payment.consultation_id)
    if with_notes:
        # Each note belongs to one refund. Joined to the refunds they add no rows, and a flush need not read them.
        notes = [refund.credit_note for refund in payment.refunds if refund.credit_note is not None]
        set_committed_value(payment, "credit_notes", sorted(notes, key=lambda note: note.id))
    return payment, key


def read_for_update(
    session: Session, change: ChangeCommand, *, with_notes: bool = False, locked: bool = False
) -> tuple[Payment, IdempotencyKey | None]:
    """``read_for_change``, with the row locked if the locking strategy uses row locks, or if it has to be ``locked``.

    Raises:
        LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
    """
    enter_queue(session, Payment.__tablename__, change.payment_id)  # without a row lock, the flush waits for the row
    if locked or locks.uses_row_locks():
        lock_payment(session, change.payment_id)
    return read_for_change(session, change, with_notes=with_notes)


def continue_from(
    session: Session, read: FirstAttempt[Payment], caller: Caller | None, *, locked: bool = False
) -> Payment | None:
    """The payment as it was read before this transaction; None if it has to be read again.

    The flush finds out whether it has changed since: it compares the version. With a row lock, that is known here.
    ``locked``: lock the row whatever the strategy. ``caller``: whose payment link or API key has to stand still; a user
    is compared when the key is stored.

    Raises:
        NotAuthenticated, Forbidden: as ``require_valid_credential`` (401, 403).
        LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
    """
    payment = read.take()
    if payment is None or locks.uses_leases():
        return None
    if not _is_guarded(payment):
        return None
    enter_queue(session, Payment.__tablename__, payment.id)  # as above
    if (locked or locks.uses_row_locks()) and lock_payment(session, payment.id) != payment.version:
        return None
    if caller is not None:
        require_valid_credential(session, caller)
    session.add(payment)
    return payment


def lock_payment(session: Session, payment_id: int) -> int | None:
    """Lock the row, if it exists, until the transaction ends; returns its version. On SQLite the write lock does that
    already.

    The lock is a statement of its own, before the payment is read. A single statement that waits for the lock would see
    the payment's new state, but its invoice's old one.

    Raises:
        LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
    """
    enter_queue(session, Payment.__tablename__, payment_id)
    for (version,) in _LOCK.rows(session, {"payment_id": payment_id}):
        return int(version)
    return None


_LOCK = DirectStatement(
    select(Payment.version).where(Payment.id == bindparam("payment_id", type_=Payment.id.type)).with_for_update()
)


def get_for_update(session: Session, payment_id: int) -> Payment:
    """A payment that is known to exist, locked, with the rows that its verbs need."""
    lock_payment(session, payment_id)
    return session.scalars(with_related().where(Payment.id == payment_id)).unique().one()


def lock_as_read(session: Session, payment: Payment) -> Payment:
    """A payment that was read in this transaction with the rows that its verbs need, locked.

    It is read again if it has changed since.

    Raises:
        LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
    """
    if lock_payment(session, payment.id) == payment.version and _is_guarded(payment):
        return payment
    session.expunge_all()
    return get_for_update(session, payment.id)


def _is_guarded(payment: Payment) -> bool:
    """Whether the version says of all that matters that it has not changed."""
    # A failed refund that is reported, and a credit note that is issued later, do not raise the version. Only to these
    # payments they may matter.
    return not any(refund.unallocated_minor or refund.lacks_note for refund in payment.refunds)


def _owned(session: Session, query: Select[Payment], payment_id: int, caller: Caller) -> Payment:
    found = query.add_columns(_registered_by(caller)).where(Payment.id == payment_id, Payment.deleted_at.is_(None))
    row = session.execute(found).unique().one_or_none()
    if row is None:
        raise PaymentNotFound
    payment, registered_by = row
    caller.require_access(
        PaymentNotFound,
        patient_id=payment.user_id,
        consultation_id=payment.consultation_id,
        registered_by=registered_by,
    )
    return payment  # type: ignore[no-any-return]  # of a row of two


def _registered_by(caller: Caller) -> ColumnElement[int | None]:
    """Who registered the payment's consultation: looked up only for a booking system, whose right depends on it."""
    if caller.role != Role.BOOKING:
        return cast(null(), Consultation.registered_by.type)
    return select(Consultation.registered_by).where(Consultation.id == Payment.consultation_id).scalar_subquery()


def with_related() -> Select[Payment]:
    """Payments with their invoices and refunds, which their verbs need."""
    # A join and not a query each: on PostgreSQL only a single statement sees all these rows at one moment.
    return select(Payment).options(joinedload(Payment.invoices), joinedload(Payment.refunds))


@cache  # made on first use: only then is every model imported
def _for_change(*, with_notes: bool) -> Select[Payment, IdempotencyKey, str, int, datetime | None]:
    user_id = bindparam("user_id", type_=User.id.type)
    of_key = and_(IdempotencyKey.user_id == user_id, IdempotencyKey.key == bindparam("key"))
    found = (
        select(Payment, IdempotencyKey, *USER_STATE)
        .select_from(Payment)
        .outerjoin(IdempotencyKey, of_key)
        .outerjoin(User, User.id == user_id)
        .where(Payment.id == bindparam("payment_id", type_=Payment.id.type), Payment.deleted_at.is_(None))
        .options(joinedload(Payment.invoices), joinedload(Payment.refunds))
    )
    if not with_notes:
        return found
    return found.options(joinedload(Payment.tax_records), joinedload(Payment.refunds).joinedload(Refund.credit_note))
