"""Asking the gateway what became of a payment's session, while somebody waits for it."""

import logging
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import CursorResult, or_, update
from sqlalchemy.orm import Session

from payments_app.accounts.caller import Caller
from payments_app.db.row_waits import enter_queue
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import AppError, GatewayUnavailable
from payments_app.gateways.base import CheckoutSession, SessionStatus
from payments_app.gateways.registry import can_be_asked, find_gateway
from payments_app.payments.gateway_updates import apply_session_update
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import UNPAID
from payments_app.payments.repository import get_readable
from payments_app.payments.sessions import find_open_session

log = logging.getLogger(__name__)

# So long a gateway is not asked again about a payment, however many wait for it.
ASK_AGAIN_AFTER = timedelta(seconds=2)


def refresh(payment_id: int, *, caller: Caller, context: AuditContext) -> Payment:
    """The payment as it is, after its gateway was asked what became of its open session.

    The gateway is asked at most once in 2 s. Then, and if it does not answer or there is no place for the call, the
    payment is returned as it is.

    Raises:
        PaymentNotFound: no such payment (404).
        Forbidden: the payment is another patient's, or another system registered its consultation (403).
    """
    payment, session_id, reference = _load(payment_id, caller)
    if reference is None or payment.status not in UNPAID or not can_be_asked(payment.gateway):
        return payment
    try:
        with find_gateway(payment.gateway).place():  # before the turn: without a place, the next request may have it
            was_asked = _take_turn(session_id, context.at) and _ask(payment, reference, context)
    except GatewayUnavailable as refusal:
        _log_not_refreshed(payment_id, refusal)
        return payment
    return _load(payment_id, caller)[0] if was_asked else payment


def _ask(payment: Payment, reference: str, context: AuditContext) -> bool:
    """Ask the gateway, and apply what it says; whether that may have changed the payment."""
    found = find_gateway(payment.gateway).look_up_session(payment.charge, reference)
    if not isinstance(found, CheckoutSession) or found.status == SessionStatus.OPEN:
        return False
    try:
        # The gateway says so, whoever asked: a link that has expired may ask, and changes nothing itself.
        apply_session_update(payment.id, found, replace(context, actor=f"gateway:{payment.gateway}"))
    except AppError as error:  # its webhook, or the next request, tries again
        _log_not_refreshed(payment.id, error)
    return True


def _log_not_refreshed(payment_id: int, error: AppError) -> None:
    log.warning("Payment %d could not be refreshed: %s", payment_id, error.message)


@read_transaction
def _load(session: Session, payment_id: int, caller: Caller) -> tuple[Payment, int, str | None]:
    """The payment, and id and reference of its open session (0 and None if there is none)."""
    payment = get_readable(session, payment_id, caller)
    row = find_open_session(session, payment_id)
    return (payment, 0, None) if row is None else (payment, row.id, row.reference)


@write_transaction
def _take_turn(session: Session, session_id: int, at: datetime) -> bool:
    """Whether this request is the one that asks: of many at once, the one whose UPDATE finds the row so."""
    enter_queue(session, GatewaySession.__tablename__, session_id)
    is_due = or_(GatewaySession.refreshed_at.is_(None), GatewaySession.refreshed_at < at - ASK_AGAIN_AFTER)
    asked = update(GatewaySession).where(GatewaySession.id == session_id, is_due).values(refreshed_at=at)
    result = session.execute(asked)
    assert isinstance(result, CursorResult)  # noqa: S101  # for the type checker: it is, of an UPDATE
    return result.rowcount == 1
