"""Counts the payments that need a review by staff, and ends a review."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.repository import get_for_update


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
