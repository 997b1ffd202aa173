"""Erases a patient's personal data; payments, invoices and all ids stay, as the law wants them kept.

The pseudonym leads nowhere: nothing here, and no table, says whom it stands for.
"""

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import func, literal, select, update
from sqlalchemy.orm import Session, joinedload

from payments_app.accounts.models import ApiKey, PaymentLink, Role, User
from payments_app.consultations.models import Consultation
from payments_app.db.errors import RetryTransaction
from payments_app.db.transaction import after_commit, write_transaction
from payments_app.errors import UserNotFound
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency import response_cache
from payments_app.observability.logging import get_logger
from payments_app.payments.models.dispute import OPEN as OPEN_DISPUTES
from payments_app.payments.models.dispute import Dispute
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.gateway_session import ENDED as ENDED_SESSIONS
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import UNPAID

log = get_logger(__name__)


class NotErasable(Exception):
    """The reasons, one text each: the user is staff, or money is open."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))


def erase(user_id: int, context: AuditContext) -> bool:
    """Erase a patient. Again, it erases what was added since. False if Redis did not answer: its copies of responses
    stay until they end by themselves, or until the next call.

    Raises:
        UserNotFound: no user has that id (404).
        NotErasable: the user is staff, or a payment, refund, review or dispute of theirs is not over.
    """
    return response_cache.discard(_erase(user_id, context))


@write_transaction
def _erase(session: Session, user_id: int, context: AuditContext) -> list[tuple[int, str]]:
    user = session.get(User, user_id)
    if user is None:
        raise UserNotFound
    if user.role != Role.PATIENT:
        raise NotErasable([f"{user.email} is staff: disable them instead"])
    # The order of all locks: consultation, payment, link, user. A create locks its consultation, and finds it closed.
    of_patient = select(Consultation).where(Consultation.patient_id == user_id)
    consultations = session.scalars(of_patient.order_by(Consultation.id).with_for_update()).all()
    payments = _lock_payments(session, user_id)
    consultation_ids, payment_ids = [row.id for row in consultations], [row.id for row in payments]
    if reasons := list(_reasons_against(session, payments)):
        raise NotErasable(reasons)
    _end_links_and_keys(session, user_id, consultation_ids, context)
    session.refresh(user, with_for_update=True)
    more = of_patient.with_only_columns(func.count()).where(Consultation.id.not_in(consultation_ids))
    if session.scalar(more):  # registered before the lock above, which later ones wait for and then fail
        raise RetryTransaction
    for consultation in consultations:
        consultation.erase(context.at)
    for payment in payments:
        payment.erase_refund_reasons(context)
    user.erase(context.at)
    sessions = update(GatewaySession).where(GatewaySession.payment_id.in_(payment_ids))
    session.execute(sessions.values(description=None, return_url=None))
    forgotten = idempotency.forget_patient(session, user_id, payment_ids)
    session.flush()
    after_commit(user, lambda: log.info("User: erased", user_id=user_id, actor=context.actor))
    return forgotten


def _lock_payments(session: Session, user_id: int) -> Sequence[Payment]:
    theirs = select(Payment).where(Payment.user_id == user_id).order_by(Payment.id)
    # A statement of its own, as in ``repository.lock_payment``.
    session.execute(theirs.with_only_columns(Payment.id).with_for_update()).all()
    with_refunds = theirs.options(joinedload(Payment.refunds), joinedload(Payment.invoices))
    return session.scalars(with_refunds).unique().all()


def _reasons_against(session: Session, payments: Iterable[Payment]) -> Iterator[str]:
    for payment in payments:
        if payment.is_active and payment.status in UNPAID:
            yield f"payment {payment.id} is {payment.status}"
        if payment.needs_review:
            yield f"payment {payment.id} needs a review"
        for refund in payment.refunds:
            if refund.is_open:
                yield f"refund {refund.id} of payment {payment.id} is {refund.status}"
    payment_ids = [payment.id for payment in payments]
    disputes = select(Dispute.id, Dispute.payment_id, Dispute.status).where(Dispute.payment_id.in_(payment_ids))
    for dispute_id, payment_id, status in session.execute(disputes.where(Dispute.status.in_(OPEN_DISPUTES))):
        yield f"dispute {dispute_id} of payment {payment_id} is {status.replace('_', ' ')}"
    of_payments = select(GatewaySession.payment_id).where(GatewaySession.payment_id.in_(payment_ids))
    for payment_id in session.scalars(of_payments.where(GatewaySession.status.not_in(ENDED_SESSIONS))):
        yield f"payment {payment_id} can still be paid at its gateway, until payments expire has ended its session"


def _end_links_and_keys(session: Session, user_id: int, consultation_ids: Sequence[int], context: AuditContext) -> None:
    at = literal(context.at, PaymentLink.revoked_at.type)
    # The address that a link leads back to may name the patient.
    links = update(PaymentLink).where(PaymentLink.consultation_id.in_(consultation_ids))
    session.execute(links.values(revoked_at=func.coalesce(PaymentLink.revoked_at, at), return_url=None))
    keys = update(ApiKey).where(ApiKey.user_id == user_id)
    session.execute(keys.values(revoked_at=func.coalesce(ApiKey.revoked_at, at), name="erased"))
