"""Payments in the database: each function is one transaction's worth of work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Select, Tuple, func, literal, select, tuple_
from sqlalchemy.orm import Session, joinedload

from payments_app.accounts.caller import Caller
from payments_app.accounts.repository import require_valid
from payments_app.db.transaction import read_transaction
from payments_app.errors import PaymentNotFound, PreconditionFailed, TransactionAlreadyUsed, VersionConflict
from payments_app.gateways.references import normalized_reference
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.locking import locks
from payments_app.observability import metrics
from payments_app.payments.models.event import AuditContext, PaymentEvent
from payments_app.payments.models.payment import REFERENCE_ALONE, Payment

# What the doors make of a payment that was changed.
Render = Callable[[Payment], StoredResponse]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the caller believes of the payment's version: by If-Match, by ``expected_version``, or nothing."""

    if_match: Callable[[int], bool] | None = None
    expected_version: int | None = None

    def require(self, payment: Payment) -> None:
        """Raises:
        PreconditionFailed: If-Match names another version, or none (412).
        VersionConflict: ``expected_version`` is not the payment's (409).
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
    """Somebody's wish to change a payment: who, under which key, and on what conditions."""

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
        Forbidden: another patient's (403).
    """
    return _owned(session, _whole().options(joinedload(Payment.tax_records)), payment_id, caller)


@read_transaction
def get_status(session: Session, payment_id: int) -> str:
    """The present status of a payment that is known to be there, soft-deleted or not."""
    return session.scalars(select(Payment.status).where(Payment.id == payment_id)).one()


@read_transaction
def count_references_not_compared(session: Session) -> int:
    """How many payments by hand have a reference that no constraint compares with the others."""
    return session.scalars(select(func.count()).select_from(Payment).where(REFERENCE_ALONE)).one()


def require_unused_reference(session: Session, payment: Payment, reference: str) -> None:
    """Compare with the references that no constraint compares: there is one more statement for money by hand alone.

    What is compared here was written before, and no longer changes. All others are the constraint's matter.

    Raises:
        TransactionAlreadyUsed: it paid for another payment, in whatever spelling (409).
    """
    wanted = normalized_reference(payment.gateway, reference)
    if wanted is None:
        return
    of_method = (Payment.payment_method == payment.payment_method, Payment.id != payment.id)
    for used in session.scalars(select(Payment.transaction_id).where(REFERENCE_ALONE, *of_method)):
        if used is not None and normalized_reference(payment.gateway, used) == wanted:
            raise TransactionAlreadyUsed


def keyset(position: tuple[datetime, int]) -> Tuple:
    """A (created_at, id) to compare with, in the columns' own types."""
    created_at, payment_id = position
    return tuple_(literal(created_at, Payment.created_at.type), literal(payment_id, Payment.id.type))


@read_transaction
def list_events(session: Session, payment_id: int, *, caller: Caller) -> Sequence[PaymentEvent]:
    """The payment's audit trail, oldest first.

    Raises:
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's (403).
    """
    # One statement: an outer join, so that a payment without a trail is told from one that is not there.
    found = session.execute(
        select(Payment.user_id, Payment.consultation_id, PaymentEvent)
        .outerjoin(PaymentEvent, PaymentEvent.payment_id == Payment.id)
        .where(Payment.id == payment_id, Payment.deleted_at.is_(None))
        .order_by(PaymentEvent.id)
    ).all()
    if not found:
        raise PaymentNotFound
    caller.require_access(PaymentNotFound, patient_id=found[0].user_id, consultation_id=found[0].consultation_id)
    return [event for *_owner, event in found if event is not None]


def flush_and_store(session: Session, payment: Payment, change: ChangeCommand, render: Render) -> StoredResponse:
    """Write the effect of a verb down, and the answer under its key."""
    session.flush()  # the one flush of this effect: the version rises here, or StaleDataError says who was first
    response = render(payment)
    idempotency.store(session, change.request, response, payment_id=payment.id, at=change.context.at)
    return response


def get_owned(session: Session, payment_id: int, caller: Caller) -> Payment:
    """A payment with all that its verbs look at, for a caller who may change it.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's (403).
    """
    require_valid(session, caller)
    return _owned(session, _whole(), payment_id, caller)


def get_owned_for_update(session: Session, payment_id: int, caller: Caller) -> Payment:
    """``get_owned``, with the row locked where the locking strategy says so."""
    if locks.uses_row_locks():
        lock_payment(session, payment_id)
    return get_owned(session, payment_id, caller)


def lock_payment(session: Session, payment_id: int) -> None:
    """Lock the row, where it exists, until the end of the transaction; on SQLite the writer's lock does that.

    By a statement of its own, before the payment is read: one that waited for the lock would see the payment anew,
    but its invoice as it was.
    """
    session.execute(select(Payment.id).where(Payment.id == payment_id).with_for_update())


def get_for_update(session: Session, payment_id: int) -> Payment:
    """A payment that is known to be there, locked, with all that its verbs look at."""
    lock_payment(session, payment_id)
    return session.scalars(_whole().where(Payment.id == payment_id)).unique().one()


def _owned(session: Session, wanted: Select[Payment], payment_id: int, caller: Caller) -> Payment:
    found = wanted.where(Payment.id == payment_id, Payment.deleted_at.is_(None))
    payment = session.execute(found).unique().scalar_one_or_none()
    if payment is None:
        raise PaymentNotFound
    caller.require_access(PaymentNotFound, patient_id=payment.user_id, consultation_id=payment.consultation_id)
    return payment


def _whole() -> Select[Payment]:
    # Joined, not one query each: on PostgreSQL only one statement sees a payment and what belongs to it at one moment.
    return select(Payment).options(joinedload(Payment.invoices), joinedload(Payment.refunds))
