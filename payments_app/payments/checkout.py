"""Opens the gateway session by which a patient pays, or returns the one that is open."""

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

# Makes the response from a session. Its body holds a secret: it is sent, and stored nowhere.
Render = Callable[[Payment, CheckoutSession], StoredResponse]


@dataclass(frozen=True, slots=True)
class CheckoutState:
    """A payment, its newest session's reference (or None), and whether the key was used for this checkout before."""

    payment: Payment
    reference: str | None
    replayed: bool


def checkout(change: ChangeCommand, render: Render) -> StoredResponse:
    """Open the payment's session at its gateway, or return the existing one. Neither status nor version changes.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient (403).
        IdempotencyKeyReused: the key was used for another request (422).
        InvalidTransition: the payment was paid, or has ended (409).
        GatewayRefused: the gateway refused to open a session (502).
        GatewayUnavailable: no response from the gateway; nothing changed (503).
    """
    state = _read_state(change)
    gateway = find_gateway(state.payment.gateway)
    charge = state.payment.charge
    found = (
        gateway.open_session(charge) if state.reference is None else gateway.look_up_session(charge, state.reference)
    )
    if isinstance(found, Declined):
        raise GatewayRefused
    if not isinstance(found, CheckoutSession):
        raise GatewayUnavailable
    if state.payment.status in UNPAID and found.status in (SessionStatus.SUCCEEDED, SessionStatus.CANCELLED):
        # This session can no longer be paid; the gateway's webhook about that has not arrived yet.
        raise InvalidTransition(payment_status=apply_session_update(charge.payment_id, found, change.context))
    if state.replayed:
        return render(state.payment, found).as_replay()
    stored = _store(change, found)
    if isinstance(stored, InvalidTransition):
        # The payment ended during the gateway call: the session that was just opened must not be paid.
        gateway.cancel_session(charge, found.reference)
        raise stored
    response = render(stored.payment, found)
    return response.as_replay() if stored.replayed else response


@read_transaction
def _read_state(session: Session, change: ChangeCommand) -> CheckoutState:
    payment = get_owned(session, change.payment_id, change.caller)
    replayed = idempotency.was_used(session, change.request)
    if not replayed and payment.status not in UNPAID:
        raise InvalidTransition(payment_status=payment.status)
    references = select(GatewaySession.reference).where(GatewaySession.payment_id == change.payment_id)
    newest = session.scalars(references.order_by(GatewaySession.id.desc()).limit(1)).first()
    return CheckoutState(payment, newest, replayed)


@write_transaction
def _store(session: Session, change: ChangeCommand, found: CheckoutSession) -> CheckoutState | InvalidTransition:
    # Locked under every strategy: a process that ends the payment holds the same lock, and so ends this session too.
    lock_payment(session, change.payment_id)
    payment = get_owned(session, change.payment_id, change.caller)
    if idempotency.was_used(session, change.request):
        return CheckoutState(payment, found.reference, replayed=True)
    if payment.status not in UNPAID:
        return InvalidTransition(payment_status=payment.status)
    store_session(session, payment, found.reference, SessionStatus.OPEN, at=change.context.at)
    without_body = StoredResponse(HTTPStatus.OK, "", store_body=False)
    idempotency.store(session, change.request, without_body, payment_id=payment.id, at=change.context.at)
    session.flush()
    return CheckoutState(payment, found.reference, replayed=False)
