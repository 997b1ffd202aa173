"""Counts the payments that need a review by staff, and ends a review."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from payments_app.accounts.caller import Caller
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.repository import Conditions, get_for_update, get_owned, lock_payment


@read_transaction
def count(session: Session) -> int:
    """The number of payments that need a review."""
    return session.scalars(select(func.count()).select_from(Payment).where(Payment.needs_review)).one()


@write_transaction
def end_review(session: Session, payment_id: int, context: AuditContext) -> None:
    """End a payment's review, after staff have put the problem right.

    Raises:
        InvalidTransition: the payment still holds money that has to be refunded (409).
    """
    get_for_update(session, payment_id).end_review(context)


@write_transaction
def resolve(
    session: Session, payment_id: int, *, caller: Caller, conditions: Conditions, context: AuditContext
) -> Payment:
    """End a payment's review on the word of staff; a payment that needs none stays as it is.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        VersionConflict: the payment has changed since the caller looked at it (409).
        InvalidTransition: the payment still holds money that has to be refunded (409).
    """
    lock_payment(session, payment_id)
    payment = get_owned(session, payment_id, caller)
    if payment.needs_review:
        conditions.require(payment)
        payment.end_review(context)
    return payment
