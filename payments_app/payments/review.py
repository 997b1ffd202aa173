"""Ending a review: staff's word that what was to be put right is put right."""

from sqlalchemy.orm import Session

from payments_app.database import write_transaction
from payments_app.payments.events import Deed
from payments_app.payments.repository import locked


@write_transaction
def end_review(session: Session, payment_id: int, deed: Deed) -> None:
    """Raises:
    InvalidTransition: money that may not stay is still here (409).
    """
    locked(session, payment_id).end_review(deed)
