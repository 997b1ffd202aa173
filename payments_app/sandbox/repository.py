"""The sandbox's checkouts. It has no books of its own: what it knows of a checkout is its session's row."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.db.transaction import read_transaction
from payments_app.gateways.base import Charge, GatewayName, SessionStatus
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import UNPAID


@dataclass(frozen=True, slots=True)
class SandboxCheckout:
    """A checkout as its page shows it. ``return_url``: where the patient came from."""

    charge: Charge
    reference: str
    description: str
    return_url: str
    language: str
    is_open: bool


@read_transaction
def find_checkout(session: Session, reference: str) -> SandboxCheckout | None:
    """The checkout of that reference; None if there is none any more."""
    of_sandbox = (GatewaySession.gateway == GatewayName.SANDBOX.value, GatewaySession.reference == reference)
    row = session.scalars(select(GatewaySession).where(*of_sandbox)).one_or_none()
    if row is None:
        return None
    payment = session.get_one(Payment, row.payment_id)
    has_time = row.expires_at is None or clock.now() < row.expires_at
    return SandboxCheckout(
        charge=payment.charge,
        reference=reference,
        description=row.description or "",
        return_url=row.return_url or "/",
        language=row.language or "en",
        is_open=row.status == SessionStatus.OPEN and payment.status in UNPAID and has_time,
    )
