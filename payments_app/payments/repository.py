"""Payments in the database: each function is one transaction's worth of work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, literal, select, tuple_
from sqlalchemy.orm import Session, joinedload

from payments_app.accounts.callers import Caller
from payments_app.accounts.repository import require_valid
from payments_app.database import read_transaction, write_transaction
from payments_app.errors import Forbidden, PaymentNotFound, PreconditionFailed, VersionConflict
from payments_app.gateways.registry import Gateway
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.keyed import Answer, KeyedRequest
from payments_app.idempotency.once import once
from payments_app.locking import locks
from payments_app.paging import Page
from payments_app.payments.models import Deed, Payment, PaymentEvent

# What the doors make of a payment that was changed.
Render = Callable[[Payment], Answer]


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
            raise PreconditionFailed(current_version=payment.version)
        if self.expected_version is not None and self.expected_version != payment.version:
            raise VersionConflict.stale_expectation(
                expected_version=self.expected_version, current_version=payment.version
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which payments a list shows; ``after`` is the (created_at, id) behind which the page begins."""

    status: str | None
    consultation_id: int | None
    after: tuple[datetime, int] | None
    per_page: int


@read_transaction
def get(session: Session, payment_id: int, *, caller: Caller) -> Payment:
    """A payment with its invoices and tax records.

    Raises:
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's (403).
    """
    # Joined, not one query each: on PostgreSQL only one statement sees the payment and its invoice at one moment.
    wanted = select(Payment).options(joinedload(Payment.invoices), joinedload(Payment.tax_records))
    return _owned(session, wanted, payment_id, caller)


@read_transaction
def get_status(session: Session, payment_id: int) -> str:
    """The present status of a payment that is known to be there, soft-deleted or not."""
    return session.scalars(select(Payment.status).where(Payment.id == payment_id)).one()


@read_transaction
def list_page(session: Session, shown: Filter, *, caller: Caller) -> Page[Payment]:
    """The caller's payments, or for an admin everybody's, newest first."""
    age = tuple_(Payment.created_at, Payment.id)
    wanted = select(Payment).where(Payment.deleted_at.is_(None))
    if not caller.is_admin:
        wanted = wanted.where(Payment.user_id == caller.user_id)
    if shown.status is not None:
        wanted = wanted.where(Payment.status == shown.status)
    if shown.consultation_id is not None:
        wanted = wanted.where(Payment.consultation_id == shown.consultation_id)
    if shown.after is not None:
        created_at, payment_id = shown.after
        wanted = wanted.where(
            age < tuple_(literal(created_at, Payment.created_at.type), literal(payment_id, Payment.id.type))
        )
    wanted = wanted.order_by(Payment.created_at.desc(), Payment.id.desc()).limit(shown.per_page + 1)
    return Page.cut(session.scalars(wanted).all(), shown.per_page)


@read_transaction
def list_events(session: Session, payment_id: int, *, caller: Caller) -> Sequence[PaymentEvent]:
    """The payment's audit trail, oldest first.

    Raises:
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's (403).
    """
    payment = _owned(session, select(Payment), payment_id, caller)
    return session.scalars(
        select(PaymentEvent).where(PaymentEvent.payment_id == payment.id).order_by(PaymentEvent.id)
    ).all()


def confirm(
    payment_id: int,
    *,
    transaction_id: str,
    receipt_url: str | None,
    caller: Caller,
    conditions: Conditions,
    keyed: KeyedRequest,
    deed: Deed,
    render: Render,
) -> Answer:
    """Mark a payment completed and its invoice paid.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's; or paid by hand, which only staff can see arrive (403).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        InvalidTransition: the payment's status does not allow it (409).
        TransactionAlreadyUsed: ``transaction_id`` paid for another payment (409).
        LockTimeout: a configured lock was not had in time (409, retryable).
    """

    @write_transaction
    def work(session: Session) -> Answer:
        payment = _owned_for_change(session, payment_id, caller)
        if payment.gateway == Gateway.MANUAL and not caller.is_admin:
            raise Forbidden("Staff confirm this payment once the money has arrived.")
        answered = idempotency.find_answer(session, keyed)
        if answered is not None:
            return answered
        if payment.was_completed_by(transaction_id):
            return render(payment).as_replay()
        conditions.require(payment)
        payment.complete(transaction_id, receipt_url=receipt_url, deed=deed)
        return _flush_and_keep(session, payment, keyed, deed, render)

    return once(keyed, lock=locks.changing(payment_id), work=work)


def cancel(
    payment_id: int, *, caller: Caller, conditions: Conditions, keyed: KeyedRequest, deed: Deed, render: Render
) -> Answer:
    """Give a pending payment up, void its invoice and free its consultation.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's (403).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        InvalidTransition: the payment is not pending (409).
        LockTimeout: a configured lock was not had in time (409, retryable).
    """

    @write_transaction
    def work(session: Session) -> Answer:
        payment = _owned_for_change(session, payment_id, caller)
        answered = idempotency.find_answer(session, keyed)
        if answered is not None:
            return answered
        conditions.require(payment)
        payment.cancel(deed)
        return _flush_and_keep(session, payment, keyed, deed, render)

    return once(keyed, lock=locks.changing(payment_id), work=work)


def _flush_and_keep(session: Session, payment: Payment, keyed: KeyedRequest, deed: Deed, render: Render) -> Answer:
    session.flush()  # the one flush of this effect: the version rises here, or StaleDataError says who was first
    answer = render(payment)
    idempotency.keep(session, keyed, answer, payment_id=payment.id, at=deed.at)
    return answer


def _owned_for_change(session: Session, payment_id: int, caller: Caller) -> Payment:
    require_valid(session, caller)
    if locks.locks_rows():
        # By a statement of its own: one that waited for the lock sees the payment anew, but its invoice as it was.
        session.execute(select(Payment.id).where(Payment.id == payment_id).with_for_update())
    return _owned(session, select(Payment).options(joinedload(Payment.invoices)), payment_id, caller)


def _owned(session: Session, wanted: Select[Payment], payment_id: int, caller: Caller) -> Payment:
    found = wanted.where(Payment.id == payment_id, Payment.deleted_at.is_(None))
    payment = session.execute(found).unique().scalar_one_or_none()
    if payment is None:
        raise PaymentNotFound
    if not caller.is_admin and payment.user_id != caller.user_id:
        raise Forbidden
    return payment
