"""Confirms a payment: check the request, verify the money with the gateway, and only then write."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app.accounts.repository import require_valid
from payments_app.consultations.repository import is_closed
from payments_app.db.transaction import FirstAttempt, read_transaction, write_transaction
from payments_app.errors import (
    ActivePaymentExists,
    Conflict,
    ConsultationClosed,
    Forbidden,
    GatewayUnavailable,
    InvalidTransition,
    PaymentNotVerified,
)
from payments_app.gateways.base import CheckoutSession, Declined, GatewayPayment, verify
from payments_app.gateways.references import require_comparable
from payments_app.gateways.registry import can_be_asked, find_gateway
from payments_app.i18n.messages import N_
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import StoredResponse
from payments_app.idempotency.service import run_idempotent
from payments_app.locking import locks
from payments_app.payments.gateway_updates import end_newer_session, record_received_money
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.repository import (
    ChangeCommand,
    Render,
    continue_from,
    flush_and_store,
    read_for_change,
    read_for_update,
    require_unused_reference,
)
from payments_app.payments.sessions import OpenSession


@dataclass(frozen=True, slots=True)
class PaymentProof:
    """The transaction that, according to the caller, paid the payment."""

    transaction_id: str
    receipt_url: str | None


def confirm(change: ChangeCommand, proof: PaymentProof, render: Render) -> StoredResponse:
    """Mark a payment completed and its invoice paid, if its gateway confirms the money.

    If the money comes too late, because the consultation is closed or has another payment by then, it is recorded for
    staff to refund.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        PaymentNotVerified: the gateway does not confirm that this transaction pays the payment (402).
        PaymentNotFound: no such payment (404).
        Forbidden: the payment belongs to another patient; or it is paid by hand, which only staff may confirm (403).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        InvalidTransition: the payment's status does not allow it (409).
        ActivePaymentExists: it has ended, and its consultation has another payment (409).
        ConsultationClosed: it has ended, and its consultation is closed (409).
        TransactionAlreadyUsed: ``transaction_id`` paid for another payment (409).
        LockTimeout: a lock was not acquired in time (409, retryable).
        GatewayUnavailable: no response from the gateway; nothing changed (503).
        GatewayBusy: no place at the gateway; nothing changed (503).
    """

    def prepare() -> StoredResponse | tuple[FirstAttempt[Payment], GatewayPayment]:
        judged = _read_and_judge(change, proof, render)
        return judged if isinstance(judged, StoredResponse) else (FirstAttempt(judged), _verify(judged, proof))

    def execute(prepared: tuple[FirstAttempt[Payment], GatewayPayment]) -> StoredResponse:
        written, newer = _write(change, proof, *prepared, render=render)
        end_newer_session(newer, change.context)
        if not isinstance(written, StoredResponse):
            raise written  # after the commit: the money has arrived, so it stays recorded although the request fails
        return written

    return run_idempotent(change.request, lock=locks.change_lock(change.payment_id), prepare=prepare, execute=execute)


@read_transaction
def _read_and_judge(
    session: Session, change: ChangeCommand, proof: PaymentProof, render: Render
) -> StoredResponse | Payment:
    payment, key = read_for_change(session, change)
    return _judge(session, payment, key, change, proof, render=render) or payment


@write_transaction
def _write(
    session: Session,
    change: ChangeCommand,
    proof: PaymentProof,
    read: FirstAttempt[Payment],
    money: GatewayPayment,
    *,
    render: Render,
) -> tuple[StoredResponse | Conflict, OpenSession | None]:
    """The response, and the payment's session that is still open: for ``end_newer_session``.

    The first attempt begins from what was judged before the gateway was asked. If that has changed, it is judged again.
    """
    payment = continue_from(session, read, change.caller)
    if payment is None:
        payment, key = read_for_update(session, change)
        stored = _judge(session, payment, key, change, proof, render=render)
        if stored is not None:
            return stored, None
    require_unused_reference(session, payment, proof.transaction_id)
    newer = record_received_money(session, payment, money, context=change.context, receipt_url=proof.receipt_url)
    if payment.was_completed_by(proof.transaction_id):
        return flush_and_store(session, payment, change, render), newer
    session.flush()
    require_valid(session, change.caller)  # with a key, storing it compares the user
    return _refusal(session, payment), newer


def _judge(
    session: Session,
    payment: Payment,
    key: IdempotencyKey | None,
    change: ChangeCommand,
    proof: PaymentProof,
    *,
    render: Render,
) -> StoredResponse | None:
    """Check in the contract's order. Returns a response if there is nothing left to do."""
    if not change.caller.is_admin and not can_be_asked(payment.gateway):
        raise Forbidden(N_("Staff confirm this payment once the money has arrived."))
    stored = idempotency.response_of(key, change.request)
    if stored is not None:
        return stored
    if payment.was_completed_by(proof.transaction_id):
        return render(payment).as_replay()
    require_comparable(payment.gateway, proof.transaction_id, field="transaction_id")
    change.conditions.require(payment)
    payment.require_move(PaymentStatus.COMPLETED)
    if payment.received_minor:  # this money is in review already: a second confirm changes nothing
        raise _refusal(session, payment)
    return None


def _verify(payment: Payment, proof: PaymentProof) -> GatewayPayment:
    gateway = find_gateway(payment.gateway)
    with gateway.place():
        found = gateway.look_up(payment.charge, proof.transaction_id)
    verdict = verify(payment.charge, found) if isinstance(found, CheckoutSession) else found
    if isinstance(verdict, Declined):
        raise PaymentNotVerified(verdict.reason)
    if not isinstance(found, CheckoutSession):
        raise GatewayUnavailable
    return found.money


def _refusal(session: Session, payment: Payment) -> Conflict:
    """The error for late money: names the consultation's other payment, or says that the consultation is closed;
    otherwise names this payment's status.
    """
    of_consultation = Payment.consultation_id == payment.consultation_id
    other = session.scalar(select(Payment).where(of_consultation, Payment.is_active, Payment.id != payment.id))
    if other is not None:
        return ActivePaymentExists.instead_of_late_money(payment_id=other.id, payment_status=other.status)
    if is_closed(session, payment.consultation_id):
        return ConsultationClosed.to_late_money()
    return InvalidTransition(payment_status=payment.status)
