"""Disputes: what a gateway says of one, applied to its payment, and what staff are shown of all."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction
from payments_app.gateways.events import DisputeStatus, GatewayDispute
from payments_app.pagination import Page
from payments_app.payments.models.dispute import OPEN, Dispute
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment


def apply_dispute_update(
    session: Session, payment: Payment, reported: GatewayDispute, *, told_at: datetime, context: AuditContext
) -> None:
    """Bring a payment, whose row is locked, up to what its gateway says of one dispute.

    ``told_at``: when the gateway said it. Nothing moves back: news of an earlier status changes nothing.
    """
    # Before the payment is touched: a statement of ours would flush half of its change.
    disputes = session.scalars(select(Dispute).where(Dispute.payment_id == payment.id).order_by(Dispute.id)).all()
    known = next((dispute for dispute in disputes if dispute.reference == reported.reference), None)
    status = reported.status
    if known is None:
        dispute = Dispute.record(payment, reported, told_at=told_at, context=context)
        session.add(dispute)
        _follow(payment, dispute, disputes, context.about_dispute(dispute))
        return
    context = context.about_dispute(known)
    if known.is_before(status):
        was_blocking = known.blocks_refunds
        known.move(reported, told_at=told_at)
        if was_blocking and status == DisputeStatus.UNDER_REVIEW:  # the clinic has answered, and waits for the bank
            payment.note_dispute(f"dispute.{status}", context)
        else:
            _follow(payment, known, [each for each in disputes if each is not known], context)
    elif known.is_lost and status == DisputeStatus.WON:
        # Both are final, and which came first cannot be told. Nothing is refunded until staff have asked the gateway.
        payment.flag_for_review("dispute.won_after_lost", context)
    elif known.refresh(reported, told_at=told_at):
        payment.note_dispute("dispute.updated", context)


def _follow(payment: Payment, dispute: Dispute, others: Sequence[Dispute], context: AuditContext) -> None:
    """What the present status of a dispute means to its payment; ``others`` are the payment's other disputes."""
    name = f"dispute.{dispute.status}"
    if dispute.blocks_refunds:
        payment.begin_dispute(name, context, amount_minor=dispute.amount_minor, currency=dispute.currency)
    elif dispute.is_open:
        payment.begin_inquiry(context)
    else:
        payment.end_dispute(
            name,
            context,
            is_disputed=any(each.blocks_refunds for each in others),
            is_reviewed=any(each.blocks_refunds or each.is_open for each in others),
        )


def find_disputed_payment(session: Session, gateway: str, reference: str) -> int | None:
    """The payment of a dispute that is known; None if it is not."""
    known = select(Dispute.payment_id).where(Dispute.gateway == gateway, Dispute.reference == reference)
    return session.scalars(known).first()


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeFilter:
    """Which disputes a list shows; ``before_id`` is the id behind which the page begins."""

    status: str | None
    payment_id: int | None
    before_id: int | None
    per_page: int


@read_transaction
def list_page(session: Session, shown: DisputeFilter) -> Page[Dispute]:
    """Disputes, newest first."""
    wanted = select(Dispute)
    if shown.status is not None:
        wanted = wanted.where(Dispute.status == shown.status)
    if shown.payment_id is not None:
        wanted = wanted.where(Dispute.payment_id == shown.payment_id)
    if shown.before_id is not None:
        wanted = wanted.where(Dispute.id < shown.before_id)
    return Page.cut(session.scalars(wanted.order_by(Dispute.id.desc()).limit(shown.per_page + 1)).all(), shown.per_page)


@read_transaction
def count_open(session: Session) -> int:
    """How many disputes and inquiries the bank has not decided yet."""
    return session.scalars(select(func.count()).select_from(Dispute).where(Dispute.status.in_(OPEN))).one()
