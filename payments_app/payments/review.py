"""Reviews: payments that staff have to look at, and staff's word that what was to be put right is put right."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.repository import get_for_update


@read_transaction
def count(session: Session) -> int:
    """How many payments staff have to look at."""
    return session.scalars(select(func.count()).select_from(Payment).where(Payment.needs_review)).one()


@write_transaction
def end_review(session: Session, payment_id: int, context: AuditContext) -> None:
    """Raises:
    InvalidTransition: money that may not stay is still here (409).
    """
    get_for_update(session, payment_id).end_review(context)
