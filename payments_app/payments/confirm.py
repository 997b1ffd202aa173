"""Confirming a payment: judged, verified with its gateway, and only then written."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import (
    ActivePaymentExists,
    Forbidden,
    GatewayUnavailable,
    InvalidTransition,
    PaymentNotVerified,
    ValidationFailed,
)
from payments_app.gateways.base import CheckoutSession, Declined, GatewayPayment, verify
from payments_app.gateways.references import MAX_NORMALIZED_LENGTH, normalized_reference
from payments_app.gateways.registry import can_be_asked, find_gateway
from payments_app.i18n.messages import N_
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.request import StoredResponse
from payments_app.idempotency.service import run_idempotent
from payments_app.locking import locks
from payments_app.payments.gateway_updates import record_received_money
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.repository import (
    ChangeCommand,
    Render,
    flush_and_store,
    get_owned,
    get_owned_for_update,
    require_unused_reference,
)


@dataclass(frozen=True, slots=True)
class PaymentProof:
    """What the caller says has paid the payment."""

    transaction_id: str
    receipt_url: str | None


def confirm(wanted: ChangeCommand, claim: PaymentProof, render: Render) -> StoredResponse:
    """Mark a payment completed and its invoice paid, once its gateway says so.

    Money that comes too late, to a consultation that has another payment by now, is kept for staff to return.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotVerified: the gateway does not say that this pays the payment (402).
        PaymentNotFound: no such payment (404).
        Forbidden: another patient's; or paid by hand, which only staff can see arrive (403).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        InvalidTransition: the payment's status does not allow it (409).
        ActivePaymentExists: it has ended, and its consultation has another payment (409).
        TransactionAlreadyUsed: ``transaction_id`` paid for another payment (409).
        LockTimeout: a configured lock was not had in time (409, retryable).
        GatewayUnavailable: no answer from the gateway; nothing changed (503).
    """

    def prepare() -> StoredResponse | GatewayPayment:
        seen = _see(wanted, claim, render)
        return seen if isinstance(seen, StoredResponse) else _verify(seen, claim)

    def execute(money: GatewayPayment) -> StoredResponse:
        written = _write(wanted, claim, money, render)
        if not isinstance(written, StoredResponse):
            raise written  # after the commit: that the money came is true, whatever the request is answered
        return written

    return run_idempotent(wanted.request, lock=locks.change_lock(wanted.payment_id), prepare=prepare, execute=execute)


@read_transaction
def _see(session: Session, wanted: ChangeCommand, claim: PaymentProof, render: Render) -> StoredResponse | Payment:
    payment = get_owned(session, wanted.payment_id, wanted.caller)
    return _judge(session, payment, wanted, claim, render) or payment


@write_transaction
def _write(
    session: Session, wanted: ChangeCommand, claim: PaymentProof, money: GatewayPayment, render: Render
) -> StoredResponse | ActivePaymentExists | InvalidTransition:
    payment = get_owned_for_update(session, wanted.payment_id, wanted.caller)
    answered = _judge(session, payment, wanted, claim, render)
    if answered is not None:
        return answered
    require_unused_reference(session, payment, claim.transaction_id)
    record_received_money(session, payment, money, context=wanted.context, receipt_url=claim.receipt_url)
    if payment.was_completed_by(claim.transaction_id):
        return flush_and_store(session, payment, wanted, render)
    session.flush()
    return _taken(session, payment)


def _judge(
    session: Session, payment: Payment, wanted: ChangeCommand, claim: PaymentProof, render: Render
) -> StoredResponse | None:
    """In the contract's order; an answer where there is nothing left to do."""
    if not wanted.caller.is_admin and not can_be_asked(payment.gateway):
        raise Forbidden(N_("Staff confirm this payment once the money has arrived."))
    answered = idempotency.find_response(session, wanted.request)
    if answered is not None:
        return answered
    if payment.was_completed_by(claim.transaction_id):
        return render(payment).as_replay()
    _require_comparable(payment.gateway, claim.transaction_id)
    wanted.conditions.require(payment)
    payment.require_move(PaymentStatus.COMPLETED)
    if payment.received_minor:  # money was kept for review: told again, it changes nothing
        raise _taken(session, payment)
    return None


def _require_comparable(gateway: str, transaction_id: str) -> None:
    normalized = normalized_reference(gateway, transaction_id)
    if normalized == "":
        raise ValidationFailed({"transaction_id": [N_("Must have a letter or a digit.")]})
    if normalized is not None and len(normalized) > MAX_NORMALIZED_LENGTH:
        raise ValidationFailed({"transaction_id": [N_("Too long once ligatures and the like are written out.")]})


def _verify(payment: Payment, claim: PaymentProof) -> GatewayPayment:
    found = find_gateway(payment.gateway).look_up(payment.charge, claim.transaction_id)
    verdict = verify(payment.charge, found) if isinstance(found, CheckoutSession) else found
    if isinstance(verdict, Declined):
        raise PaymentNotVerified(verdict.reason)
    if not isinstance(found, CheckoutSession):
        raise GatewayUnavailable
    return found.money


def _taken(session: Session, payment: Payment) -> ActivePaymentExists | InvalidTransition:
    """What the consultation has instead; where it has nothing any more, what the payment itself is."""
    of_consultation = Payment.consultation_id == payment.consultation_id
    other = session.scalar(select(Payment).where(of_consultation, Payment.is_active, Payment.id != payment.id))
    if other is None:
        return InvalidTransition(payment_status=payment.status)
    return ActivePaymentExists.instead_of_late_money(payment_id=other.id, payment_status=other.status)
