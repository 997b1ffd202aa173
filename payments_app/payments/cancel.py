"""Cancels a payment. Its sessions end at the gateway first. ``expire.py`` ends overdue payments with the same plan."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app.db.transaction import FirstAttempt, read_transaction, write_transaction
from payments_app.errors import GatewayUnavailable, InvalidTransition, VersionConflict
from payments_app.gateways.base import Charge, CheckoutSession, Declined, SessionStatus
from payments_app.gateways.registry import find_gateway
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import StoredResponse
from payments_app.idempotency.service import run_idempotent
from payments_app.locking import locks
from payments_app.payments.gateway_updates import apply_session_update
from payments_app.payments.models.event import AuditContext, PaymentEvent
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.repository import (
    ChangeCommand,
    Render,
    continue_from,
    flush_and_store,
    read_for_change,
    read_for_update,
)
from payments_app.payments.sessions import close_sessions, find_open_session

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CancellationPlan:
    """A payment that is about to end unpaid, and the sessions by which it could still be paid.

    ``session_ends_at``: when the open session ends by itself; None if there is none, or if it does not.
    ``older``: the sessions that have ended without money, as far as we know; oldest first.
    """

    charge: Charge
    gateway: str
    references: Sequence[str]
    session_ends_at: datetime | None
    older: Sequence[str] = ()

    @classmethod
    def of(cls, session: Session, payment: Payment) -> "CancellationPlan":
        still_open = find_open_session(session, payment.id)
        references = [] if still_open is None else [str(still_open.reference)]
        session_ends_at = None if still_open is None else still_open.expires_at
        return cls(payment.charge, payment.gateway, references, session_ends_at)

    def end_sessions(self, context: AuditContext) -> None:
        """End the sessions at the gateway. Call this outside any transaction.

        Raises:
            InvalidTransition: the money has arrived or is on its way, and the payment's new status is written (409).
            GatewayUnavailable: no response from the gateway; nothing changed (503).
            GatewayBusy: no place at the gateway; nothing changed (503).
        """
        with self.place():
            self._end_sessions(context)

    def place(self) -> AbstractContextManager[None]:
        """A place at the gateway, if it has to be called."""
        return find_gateway(self.gateway).place() if self.references else nullcontext()

    def _end_sessions(self, context: AuditContext) -> None:
        for reference in self.references:
            ended = find_gateway(self.gateway).cancel_session(self.charge, reference)
            match ended:
                case CheckoutSession(status=SessionStatus.SUCCEEDED | SessionStatus.PROCESSING):
                    raise InvalidTransition(payment_status=apply_session_update(self.charge.payment_id, ended, context))
                case CheckoutSession(status=SessionStatus.CANCELLED | SessionStatus.EXPIRED):
                    continue
                case Declined(reason=reason):
                    # No proof that it cannot be paid: it may belong to the account whose key was configured before.
                    log.error("payment %d: the gateway does not know its session: %s", self.charge.payment_id, reason)
            raise GatewayUnavailable

    def close_sessions(self, session: Session, context: AuditContext) -> None:
        """Mark the sessions cancelled, in the transaction that ends the payment and has locked its row.

        Raises:
            VersionConflict: another session was opened meanwhile (409, retryable).
        """
        closed = close_sessions(session, self.charge.payment_id, context.at)
        if not closed <= set(self.references):
            raise VersionConflict.lost_every_race()


def cancel(change: ChangeCommand, render: Render) -> StoredResponse:
    """Cancel a pending payment, void its invoice and free its consultation.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient (403).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        InvalidTransition: the payment is not pending, or was paid at the same moment (409).
        LockTimeout: a lock was not acquired in time (409, retryable).
        GatewayUnavailable: no response from the gateway; nothing changed (503).
        GatewayBusy: no place at the gateway; nothing changed (503).
    """

    def prepare() -> StoredResponse | tuple[FirstAttempt[Payment], CancellationPlan]:
        prepared = _make_plan(change)
        if isinstance(prepared, StoredResponse):
            return prepared
        payment, plan = prepared
        plan.end_sessions(change.context)
        return FirstAttempt(payment), plan

    return run_idempotent(
        change.request,
        lock=locks.change_lock(change.payment_id),
        prepare=prepare,
        execute=lambda prepared: _write(change, *prepared, render),
    )


@read_transaction
def _make_plan(session: Session, change: ChangeCommand) -> StoredResponse | tuple[Payment, CancellationPlan]:
    payment, key = read_for_change(session, change)
    return _judge(payment, key, change) or (payment, CancellationPlan.of(session, payment))


@write_transaction
def _write(
    session: Session, change: ChangeCommand, read: FirstAttempt[Payment], plan: CancellationPlan, render: Render
) -> StoredResponse:
    # Locked under every strategy: a checkout that stores its session holds the same lock.
    payment = continue_from(session, read, change.caller, locked=True)
    if payment is None:
        payment, key = read_for_update(session, change, locked=True)
        if plan.references and _was_cancelled_by_gateway(session, payment):
            # The gateway's webhook about the session that this request ended was faster: the cancel is still ours.
            return idempotency.response_of(key, change.request) or flush_and_store(session, payment, change, render)
        stored = _judge(payment, key, change)
        if stored is not None:
            return stored
    plan.close_sessions(session, change.context)
    payment.cancel(change.context)
    return flush_and_store(session, payment, change, render)


def _judge(payment: Payment, key: IdempotencyKey | None, change: ChangeCommand) -> StoredResponse | None:
    """Check in the contract's order. Returns a response if the key was used for this request before."""
    stored = idempotency.response_of(key, change.request)
    if stored is None:
        change.conditions.require(payment)
        payment.require_pending()
    return stored


def _was_cancelled_by_gateway(session: Session, payment: Payment) -> bool:
    if payment.status != PaymentStatus.CANCELLED:
        return False
    trail = select(PaymentEvent.actor).where(PaymentEvent.payment_id == payment.id)
    return session.scalars(trail.order_by(PaymentEvent.id.desc()).limit(1)).one().startswith("gateway:")
