"""Closing a consultation, so that nobody can pay it any more: its pending payment is cancelled first."""

from contextlib import ExitStack
from typing import Any, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from payments_app.accounts.caller import Caller
from payments_app.consultations.models import Consultation
from payments_app.consultations.repository import get_changeable, get_for_update
from payments_app.db.transaction import after_commit, read_transaction, write_transaction
from payments_app.errors import InvalidTransition, VersionConflict
from payments_app.observability.logging import get_logger
from payments_app.payments.cancel import CancellationPlan
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import UNPAID
from payments_app.payments.repository import get_for_update as get_payment_for_update

log = get_logger(__name__)

S = TypeVar("S", bound=Select[Any])

# In each of them somebody creates another payment, or opens another session, between our look and our writing.
ROUNDS = 3


def close(consultation_id: int, *, caller: Caller, context: AuditContext) -> Consultation:
    """Close a consultation; one that is closed already stays as it is. What was paid stays, for staff to refund.

    The session of a pending payment ends at the gateway first, outside any transaction.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        ConsultationNotFound: no such consultation (404).
        Forbidden: another booking system has registered it (403).
        InvalidTransition: money is on its way; the consultation stays open (409).
        VersionConflict: in each of three rounds, another payment or session was begun (409, retryable).
        LockTimeout: a lock was not acquired in time (409, retryable).
        GatewayUnavailable: no answer from the gateway; the consultation stays open (503).
        GatewayBusy: no place at the gateway; nothing changed (503).
    """
    with ExitStack() as place:  # at the gateway, for all rounds
        for _ in range(ROUNDS):
            plan = _plan(consultation_id, caller)
            if plan is not None:
                place.enter_context(plan.place())
            try:
                if plan is not None:
                    plan.end_sessions(context)
                closed = _close(consultation_id, caller, plan, context)
            except (InvalidTransition, VersionConflict):
                # Paid at the gateway in this moment, which has been written down, or changed by somebody else: the next
                # round sees which. If money is on its way, it says so.
                continue
            if closed is not None:
                return closed
    raise VersionConflict.lost_every_race()


@read_transaction
def _plan(session: Session, consultation_id: int, caller: Caller) -> CancellationPlan | None:
    """How to end the consultation's pending payment; None if there is none.

    Raises:
        InvalidTransition: money is on its way (409).
    """
    consultation = get_changeable(session, consultation_id, caller=caller)
    if consultation.closed_at is not None:
        return None
    # With its status in the same statement: looked up a moment later it may have ended, and stand in no way.
    payment = session.scalar(_unpaid(select(Payment), consultation_id))
    if payment is None:
        return None
    payment.require_pending()
    return CancellationPlan.of(session, payment)


@write_transaction
def _close(
    session: Session, consultation_id: int, caller: Caller, plan: CancellationPlan | None, context: AuditContext
) -> Consultation | None:
    """None, and nothing changed, if a payment is not paid that the plan does not know."""
    # From here on no payment of it can be created: that takes a lock on the same row, and finds it closed.
    consultation = get_for_update(session, consultation_id, caller=caller)
    if consultation.closed_at is None:
        # The id alone: an object would stay as it was before its row was locked.
        payment_id = session.scalar(_unpaid(select(Payment.id), consultation_id))
        if payment_id is not None:
            if plan is None or plan.charge.payment_id != payment_id:
                return None
            _cancel(session, plan, context)
        consultation.close(context.at)
        session.flush()
        after_commit(
            consultation,
            lambda: log.info("Consultation: closed", consultation_id=consultation_id, actor=context.actor),
        )
    session.refresh(consultation, ["active_payment"])
    return consultation


def _cancel(session: Session, plan: CancellationPlan, context: AuditContext) -> None:
    payment = get_payment_for_update(session, plan.charge.payment_id)
    if payment.status in UNPAID:  # else it was paid, or ended, while we waited for its lock
        payment.require_pending()
        plan.close_sessions(session, context)
        payment.cancel(context)


def _unpaid(query: S, consultation_id: int) -> S:
    """What the query selects of the consultation's payment that is pending or processing; there is one at most."""
    of_consultation = (Payment.consultation_id == consultation_id, Payment.is_active)
    return query.where(*of_consultation, Payment.status.in_(UNPAID))
