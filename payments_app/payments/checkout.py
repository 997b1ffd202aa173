"""Opening the gateway's session by which a patient pays, or coming back to the one that is open."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import GatewayRefused, GatewayUnavailable, InvalidTransition
from payments_app.gateways.base import CheckoutSession, Declined, SessionStatus
from payments_app.gateways.registry import find_gateway
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.request import StoredResponse
from payments_app.payments.gateway_updates import apply_session_update, store_session
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import UNPAID
from payments_app.payments.repository import ChangeCommand, get_owned, lock_payment

# What the doors make of a session; the body holds a secret, so it is sent, and kept nowhere.
Render = Callable[[Payment, CheckoutSession], StoredResponse]


@dataclass(frozen=True, slots=True)
class CheckoutState:
    """A payment, the reference of its session, where it has one, and whether its key was used for this before."""

    payment: Payment
    reference: str | None
    replayed: bool


def checkout(wanted: ChangeCommand, render: Render) -> StoredResponse:
    """Open the payment's session at its gateway, or return the one there is. Neither status nor version changes.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's (403).
        IdempotencyKeyReused: the key was used for another request (422).
        InvalidTransition: the payment was paid, or has ended (409).
        GatewayRefused: the gateway would not open one (502).
        GatewayUnavailable: no answer from the gateway; nothing changed (503).
    """
    seen = _see(wanted)
    gateway = find_gateway(seen.payment.gateway)
    charge = seen.payment.charge
    found = gateway.open_session(charge) if seen.reference is None else gateway.look_up_session(charge, seen.reference)
    if isinstance(found, Declined):
        raise GatewayRefused
    if not isinstance(found, CheckoutSession):
        raise GatewayUnavailable
    if seen.payment.status in UNPAID and found.status in (SessionStatus.SUCCEEDED, SessionStatus.CANCELLED):
        # Nobody can pay by it any more, which the gateway's own message is still to tell us.
        raise InvalidTransition(payment_status=apply_session_update(charge.payment_id, found, wanted.context))
    if seen.replayed:
        return render(seen.payment, found).as_replay()
    stored = _store(wanted, found)
    if isinstance(stored, InvalidTransition):
        # It ended while we were away: nobody may pay by what we have just opened.
        gateway.cancel_session(charge, found.reference)
        raise stored
    response = render(stored.payment, found)
    return response.as_replay() if stored.replayed else response


@read_transaction
def _see(session: Session, wanted: ChangeCommand) -> CheckoutState:
    payment = get_owned(session, wanted.payment_id, wanted.caller)
    replayed = idempotency.was_used(session, wanted.request)
    if not replayed and payment.status not in UNPAID:
        raise InvalidTransition(payment_status=payment.status)
    references = select(GatewaySession.reference).where(GatewaySession.payment_id == wanted.payment_id)
    newest = session.scalars(references.order_by(GatewaySession.id.desc()).limit(1)).first()
    return CheckoutState(payment, newest, replayed)


@write_transaction
def _store(session: Session, wanted: ChangeCommand, found: CheckoutSession) -> CheckoutState | InvalidTransition:
    # Locked whatever the strategy: whoever ends the payment holds the same lock, and so ends this session too.
    lock_payment(session, wanted.payment_id)
    payment = get_owned(session, wanted.payment_id, wanted.caller)
    if idempotency.was_used(session, wanted.request):
        return CheckoutState(payment, found.reference, replayed=True)
    if payment.status not in UNPAID:
        return InvalidTransition(payment_status=payment.status)
    store_session(session, payment, found.reference, SessionStatus.OPEN, at=wanted.context.at)
    nothing_kept = StoredResponse(HTTPStatus.OK, "", kept=False)
    idempotency.store(session, wanted.request, nothing_kept, payment_id=payment.id, at=wanted.context.at)
    session.flush()
    return CheckoutState(payment, found.reference, replayed=False)
