"""Opens the gateway session by which a patient pays, or returns the one that is open."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from sqlalchemy import update
from sqlalchemy.orm import Session

from payments_app.db.transaction import FirstAttempt, write_transaction
from payments_app.errors import AppError, GatewayRefused, GatewayUnavailable, InvalidTransition, VersionConflict
from payments_app.gateways.base import CheckoutSession, Declined, OutcomeUnknown, SessionRequest, SessionStatus
from payments_app.gateways.registry import find_gateway
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.request import StoredResponse
from payments_app.payments.gateway_updates import apply_session
from payments_app.payments.models.gateway_session import OPENING, GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import UNPAID
from payments_app.payments.repository import ChangeCommand, continue_from, read_for_update
from payments_app.payments.sessions import (
    SessionTerms,
    find_newest_session,
    name_opening,
    name_session,
    prepare_session,
    request_of,
)

# Makes the response from a session and the payment's end. Its body holds a secret: it is sent, and stored nowhere.
Render = Callable[[Payment, CheckoutSession, datetime], StoredResponse]


@dataclass(frozen=True, slots=True)
class PreparedSession:
    """A session's row that is committed, and what its gateway is asked: to open it, or what became of it."""

    payment: Payment
    session_id: int
    is_new: bool
    # None: it is still to be opened.
    reference: str | None
    request: SessionRequest | None
    ends_at: datetime
    replayed: bool


@dataclass(frozen=True, slots=True)
class CheckoutState:
    """A payment with a session to pay by, and whether the key was used for this before."""

    payment: Payment
    replayed: bool


def checkout(change: ChangeCommand, terms: SessionTerms, render: Render) -> StoredResponse:
    """Open the payment's session at its gateway, or return the existing one. Neither status nor version changes.

    The row of a new session is committed before the gateway is called, so that a repeated call is the same call. Before
    that, the request takes a place at the gateway, which it holds for all its calls.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient (403).
        IdempotencyKeyReused: the key was used for another request (422).
        InvalidTransition: the payment was paid, is being paid, or has ended (409).
        VersionConflict: another request opens a session at this moment (409, retryable).
        LockTimeout: a lock was not acquired in time (409, retryable).
        GatewayRefused: the gateway would not open one (502).
        GatewayUnavailable: no answer from the gateway; nothing changed (503).
        GatewayBusy: no place at the gateway; nothing changed (503).
    """
    with ExitStack() as place:
        # A second time if the first session has ended without payment, or the gateway no longer opens it as it was
        # asked.
        response = _attempt(change, terms, render, place) or _attempt(change, terms, render, place)
    if response is None:
        raise GatewayUnavailable
    return response


def _attempt(change: ChangeCommand, terms: SessionTerms, render: Render, place: ExitStack) -> StoredResponse | None:
    prepared = _prepare(change, terms, place)
    payment, gateway = prepared.payment, find_gateway(prepared.payment.gateway)
    if prepared.request is not None:
        found = gateway.open_session(prepared.request)
    else:
        found = gateway.look_up_session(payment.charge, str(prepared.reference))
    if isinstance(found, Declined):
        _decline(prepared, change)
        return None
    if isinstance(found, OutcomeUnknown):
        _end_lease(prepared, change.context.at)
        raise GatewayUnavailable
    if prepared.replayed and payment.status not in UNPAID:
        return render(payment, found, prepared.ends_at).as_replay()
    stored = _store(change, prepared, found, read=FirstAttempt(payment))
    if isinstance(stored, CheckoutState):
        response = render(stored.payment, found, prepared.ends_at)
        return response.as_replay() if stored.replayed else response
    if isinstance(stored, AppError):
        if found.status == SessionStatus.OPEN:
            # It lost its place while we were away: nobody may pay by what we have just opened.
            gateway.cancel_session(payment.charge, found.reference)
        raise stored
    return None


@write_transaction
def _prepare(session: Session, change: ChangeCommand, terms: SessionTerms, place: ExitStack) -> PreparedSession:
    # Locked whatever the strategy, as below: so of many requests at once one makes the row, and the others find it.
    payment, key = read_for_update(session, change, locked=True)
    replayed = idempotency.was_used(key, change.request)
    is_unpaid = payment.status in UNPAID
    newest = find_newest_session(session, payment.id) if replayed and not is_unpaid else None
    if newest is None and not is_unpaid:
        raise InvalidTransition(payment_status=payment.status)
    gateway = find_gateway(payment.gateway)
    # Waits for nothing, and before the first write: without a place, this transaction is rolled back empty.
    place.enter_context(gateway.place())
    if newest is None:
        row, is_new = prepare_session(session, payment, gateway.capabilities, terms, change.context.at)
    else:
        row, is_new = newest, False
    return PreparedSession(
        payment=payment,
        session_id=row.id,
        is_new=is_new,
        reference=row.reference,
        request=request_of(payment, row) if row.reference is None else None,
        ends_at=terms.deadlines.end_of(payment, row.expires_at),
        replayed=replayed,
    )


@write_transaction
def _store(
    session: Session,
    change: ChangeCommand,
    prepared: PreparedSession,
    found: CheckoutSession,
    *,
    read: FirstAttempt[Payment],
) -> CheckoutState | InvalidTransition | VersionConflict | None:
    """Keep the session and the key; None if it has ended without payment, so that another one may be opened."""
    # Locked whatever the strategy: whoever ends the payment holds the same lock, and so ends this session too. Of a
    # replay, no key is stored that would compare the caller's user.
    payment = None if prepared.replayed else continue_from(session, read, change.caller, locked=True)
    is_replay = False
    if payment is None:
        payment, key = read_for_update(session, change, locked=True)
        is_replay = idempotency.was_used(key, change.request)
    is_opened = prepared.reference is None and found.status == SessionStatus.OPEN and payment.status in UNPAID
    if not (is_opened and name_opening(session, prepared.session_id, found.reference, change.context.at)):
        row, is_current = name_session(session, payment, prepared.session_id, found.reference, change.context.at)
        if payment.status not in UNPAID:
            row.move_on(SessionStatus.CANCELLED, change.context.at)
            return InvalidTransition(payment_status=payment.status)
        is_going_on = found.status == SessionStatus.PROCESSING and found.can_be_continued
        if found.status != SessionStatus.OPEN and not is_going_on:
            # Nobody can pay by it any more, which the gateway's own message is still to tell us.
            apply_session(session, payment, found, change.context)
            is_over = found.status == SessionStatus.EXPIRED and payment.status in UNPAID
            return None if is_over else InvalidTransition(payment_status=payment.status)
        if not is_current:
            return VersionConflict.lost_every_race()
    if not is_replay:
        without_body = StoredResponse(HTTPStatus.OK, "", store_body=False)
        idempotency.store(session, change.request, without_body, payment_id=payment.id, at=change.context.at)
    return CheckoutState(payment, replayed=is_replay)


def _decline(prepared: PreparedSession, change: ChangeCommand) -> None:
    """Give up on a session that was first asked for some time ago: the gateway takes newer terms, if any.

    Raises:
        GatewayRefused: these were new (502).
    """
    if prepared.request is not None:
        _end_opening(prepared.session_id, change.context.at)
    if prepared.request is None or prepared.is_new:
        raise GatewayRefused


@write_transaction
def _end_opening(session: Session, session_id: int, at: datetime) -> None:
    # Core: a session has no version to guard, and what a webhook has told of it meanwhile stays.
    session.execute(
        update(GatewaySession)
        .where(GatewaySession.id == session_id, GatewaySession.status == OPENING)
        .values(status=SessionStatus.CANCELLED.value, leased_until=None, updated_at=at)
    )


def _end_lease(prepared: PreparedSession, at: datetime) -> None:
    """Nobody is at work on it any more: the next request need not wait."""
    if prepared.request is not None:
        _write_lease_end(prepared.session_id, at)


@write_transaction
def _write_lease_end(session: Session, session_id: int, at: datetime) -> None:
    opening = (GatewaySession.id == session_id, GatewaySession.status == OPENING)
    session.execute(update(GatewaySession).where(*opening).values(leased_until=at, updated_at=at))
