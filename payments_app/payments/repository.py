"""Loads payments for display and for change. Each function is one transaction, or part of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Select, Tuple, cast, func, literal, null, select, tuple_
from sqlalchemy.orm import Session, joinedload

from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role
from payments_app.accounts.repository import require_valid
from payments_app.consultations.models import Consultation
from payments_app.db.row_waits import enter_queue
from payments_app.db.transaction import read_transaction
from payments_app.errors import PaymentNotFound, PreconditionFailed, TransactionAlreadyUsed, VersionConflict
from payments_app.gateways.references import normalized_reference
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.locking import locks
from payments_app.observability import metrics
from payments_app.payments.models.event import AuditContext, PaymentEvent
from payments_app.payments.models.payment import REFERENCE_ALONE, Payment

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
    return _owned(session, _with_related().options(joinedload(Payment.tax_records)), payment_id, caller)


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
    return _owned(session, _with_related(), payment_id, caller)


def get_owned_for_update(session: Session, payment_id: int, caller: Caller) -> Payment:
    """``get_owned``, with the row locked if the locking strategy uses row locks.

    Raises:
        LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
    """
    enter_queue(session, Payment.__tablename__, payment_id)  # without a row lock, the flush waits for the row
    if locks.uses_row_locks():
        lock_payment(session, payment_id)
    return get_owned(session, payment_id, caller)


def lock_payment(session: Session, payment_id: int) -> None:
    """Lock the row, if it exists, until the transaction ends. On SQLite the write lock does that already.

    The lock is a statement of its own, before the payment is read. A single statement that waits for the lock would see
    the payment's new state, but its invoice's old one.

    Raises:
        LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
    """
    enter_queue(session, Payment.__tablename__, payment_id)
    session.execute(select(Payment.id).where(Payment.id == payment_id).with_for_update())


def get_for_update(session: Session, payment_id: int) -> Payment:
    """A payment that is known to exist, locked, with the rows that its verbs need."""
    lock_payment(session, payment_id)
    return session.scalars(_with_related().where(Payment.id == payment_id)).unique().one()


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


def _with_related() -> Select[Payment]:
    # A join and not a query each: on PostgreSQL only a single statement sees all these rows at one moment.
    return select(Payment).options(joinedload(Payment.invoices), joinedload(Payment.refunds))
