"""Giving a payment up, by whoever made it or because nobody paid in time: its session ends at the gateway first."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import GatewayUnavailable, InvalidTransition, VersionConflict
from payments_app.gateways.base import Charge, CheckoutSession, Declined, SessionStatus
from payments_app.gateways.registry import find_gateway
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.request import StoredResponse
from payments_app.idempotency.service import run_idempotent
from payments_app.locking import locks
from payments_app.payments.gateway_updates import apply_session_update
from payments_app.payments.models.event import AuditContext, PaymentEvent
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.repository import ChangeCommand, Render, flush_and_store, get_owned, lock_payment
from payments_app.payments.sessions import close_sessions, find_open_session

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CancellationPlan:
    """A payment about to be given up, and the sessions by which it could still be paid.

    ``session_ends_at``: when the open session ends by itself; None if there is none, or if it does not.
    """

    charge: Charge
    gateway: str
    references: Sequence[str]
    session_ends_at: datetime | None

    @classmethod
    def of(cls, session: Session, payment: Payment) -> "CancellationPlan":
        still_open = find_open_session(session, payment.id)
        references = [] if still_open is None else [str(still_open.reference)]
        session_ends_at = None if still_open is None else still_open.expires_at
        return cls(payment.charge, payment.gateway, references, session_ends_at)

    def end_sessions(self, context: AuditContext) -> None:
        """End them at the gateway. To be called outside any transaction.

        Raises:
            InvalidTransition: it is too late: the money has come, or is on its way, and that is written down (409).
            GatewayUnavailable: no answer from the gateway; nothing changed (503).
        """
        for reference in self.references:
            ended = find_gateway(self.gateway).cancel_session(self.charge, reference)
            match ended:
                case CheckoutSession(status=SessionStatus.SUCCEEDED | SessionStatus.PROCESSING):
                    raise InvalidTransition(payment_status=apply_session_update(self.charge.payment_id, ended, context))
                case CheckoutSession(status=SessionStatus.CANCELLED | SessionStatus.EXPIRED):
                    continue
                case Declined(reason=reason):
                    # No proof that nobody can pay by it: it may be in the account whose key was configured before.
                    log.error("payment %d: the gateway does not know its session: %s", self.charge.payment_id, reason)
            raise GatewayUnavailable

    def close_sessions(self, session: Session, context: AuditContext) -> None:
        """Write down that they have ended; part of the transaction that ends the payment, whose row is locked.

        Raises:
            VersionConflict: another session was opened meanwhile (409, retryable).
        """
        still_open = find_open_session(session, self.charge.payment_id)
        if still_open is not None and still_open.reference not in self.references:
            raise VersionConflict.lost_every_race()
        close_sessions(session, self.charge.payment_id, self.references, context.at)


def cancel(wanted: ChangeCommand, render: Render) -> StoredResponse:
    """Give a pending payment up, void its invoice and free its consultation.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's (403).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        InvalidTransition: the payment is not pending, or was paid in this moment (409).
        LockTimeout: a configured lock was not had in time (409, retryable).
        GatewayUnavailable: no answer from the gateway; nothing changed (503).
    """

    def prepare() -> StoredResponse | CancellationPlan:
        seen = _see(wanted)
        if isinstance(seen, CancellationPlan):
            seen.end_sessions(wanted.context)
        return seen

    lock = locks.change_lock(wanted.payment_id)
    return run_idempotent(
        wanted.request, lock=lock, prepare=prepare, execute=lambda abandoned: _write(wanted, abandoned, render)
    )


@read_transaction
def _see(session: Session, wanted: ChangeCommand) -> StoredResponse | CancellationPlan:
    payment = get_owned(session, wanted.payment_id, wanted.caller)
    return _judge(session, payment, wanted) or CancellationPlan.of(session, payment)


@write_transaction
def _write(session: Session, wanted: ChangeCommand, abandoned: CancellationPlan, render: Render) -> StoredResponse:
    # Locked whatever the strategy: a checkout that is storing its session holds the same lock.
    lock_payment(session, wanted.payment_id)
    payment = get_owned(session, wanted.payment_id, wanted.caller)
    if abandoned.references and _was_cancelled_by_gateway(session, payment):
        # It has told us of the session that we have just ended, before we came to it: the effect is ours all the same.
        return idempotency.find_response(session, wanted.request) or flush_and_store(session, payment, wanted, render)
    answered = _judge(session, payment, wanted)
    if answered is not None:
        return answered
    abandoned.close_sessions(session, wanted.context)
    payment.cancel(wanted.context)
    return flush_and_store(session, payment, wanted, render)


def _judge(session: Session, payment: Payment, wanted: ChangeCommand) -> StoredResponse | None:
    """In the contract's order; an answer where there is nothing left to do."""
    answered = idempotency.find_response(session, wanted.request)
    if answered is None:
        wanted.conditions.require(payment)
        payment.require_pending()
    return answered


def _was_cancelled_by_gateway(session: Session, payment: Payment) -> bool:
    if payment.status != PaymentStatus.CANCELLED:
        return False
    trail = select(PaymentEvent.actor).where(PaymentEvent.payment_id == payment.id)
    return session.scalars(trail.order_by(PaymentEvent.id.desc()).limit(1)).one().startswith("gateway:")
