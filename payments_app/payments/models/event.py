"""The audit trail of payments, and its log events."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import ForeignKeyConstraint, Index, String, event, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from payments_app.db.base import Base, BigId, UtcDateTime
from payments_app.db.transaction import after_commit
from payments_app.observability.logging import get_logger

if TYPE_CHECKING:
    from payments_app.payments.models.dispute import Dispute
    from payments_app.payments.models.payment import Payment
    from payments_app.payments.models.refund import Refund

log = get_logger(__name__)

# Every event there is. Other systems read them in the feed, so a name is never given another meaning.
EVENT_TYPES = (
    "payment.created",
    "payment.processing",
    "payment.completed",
    "payment.attempt_failed",
    "payment.cancelled",
    "payment.expired",
    "payment.failed",
    "payment.quarantined",
    "payment.paid_again",
    "payment.paid_in_other_currency",
    "payment.paid_unconfirmed",
    "payment.reviewed",
    "refund.requested",
    "refund.approved",
    "refund.recorded",
    "refund.pending",
    "refund.unknown",
    "refund.succeeded",
    "refund.failed",
    "refund.reversed",
    "refund.exceeds_money",
    "refund.failed_elsewhere",
    "refund.made_after_all",
    "refund.of_other_money",
    "refund.despite_dispute",
    "refunds.blocked",
    "refunds.released",
    "refunds.reasons_erased",
    "dispute.inquiry",
    "dispute.inquiry_closed",
    "dispute.needs_response",
    "dispute.under_review",
    "dispute.won",
    "dispute.lost",
    "dispute.updated",
    "dispute.meets_refund",
    "dispute.won_after_lost",
)

# Of money that the amounts of a payment do not count; each names the gateway's transaction.
UNCOUNTED_MONEY = ("payment.paid_again", "payment.paid_in_other_currency")

# Routine events are logged as info. Every other event of a payment is a warning, because staff have to look at it.
_ROUTINE = frozenset(
    {
        "payment.processing",
        "payment.completed",
        "payment.cancelled",
        "payment.expired",
        "payment.failed",
        "payment.attempt_failed",
        "payment.reviewed",
        "refund.approved",
        "dispute.updated",
        "refunds.released",
        "refunds.reasons_erased",
    }
)
# Refund and dispute log these themselves, with their own ids.
_LOGGED_ELSEWHERE = frozenset(
    f"refund.{outcome}" for outcome in ("requested", "recorded", "pending", "unknown", "succeeded", "failed")
) | frozenset(
    f"dispute.{status}" for status in ("inquiry", "inquiry_closed", "needs_response", "under_review", "won", "lost")
)


@dataclass(frozen=True, slots=True)
class AuditContext:
    """The actor, request id and time of a change, which its event stores; and the refund or dispute that it is about,
    if it is about one.
    """

    actor: str
    request_id: str | None
    at: datetime
    refund: "Refund | None" = None
    refund_amount_minor: int | None = None
    dispute: "Dispute | None" = None

    def about_refund(self, refund: "Refund", amount_minor: int) -> Self:
        """The same change, for events about this refund. ``amount_minor``: of the refund, as the event names it."""
        return replace(self, refund=refund, refund_amount_minor=amount_minor)

    def about_dispute(self, dispute: "Dispute") -> Self:
        """The same change, for events about this dispute."""
        return replace(self, dispute=dispute)


class PaymentEvent(Base):
    """One line of the audit trail: actor, event, statuses, time, and the payment's version after the change."""

    __tablename__ = "payment_events"
    __table_args__ = (
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_payment_events_payment"),
        Index("ix_payment_events_payment", "payment_id", "id"),
        Index("uq_payment_events_position", "position", unique=True),
        # Those that still have to get a position, oldest first.
        Index(
            "ix_payment_events_waiting",
            "created_at",
            "id",
            postgresql_where=text("position IS NULL"),
            sqlite_where=text("position IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    payment_id: Mapped[int] = mapped_column(BigId)
    event: Mapped[str] = mapped_column(String(64))
    from_status: Mapped[str | None] = mapped_column(String(32))
    to_status: Mapped[str] = mapped_column(String(32))
    version: Mapped[int] = mapped_column()
    actor: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))
    # The gateway's id of the money that a review is about, if it is not the payment's own transaction.
    reference: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # The refund or the dispute that it is about. Null if it is about neither, or is older than these columns.
    refund_id: Mapped[int | None] = mapped_column(BigId)
    refund_amount_minor: Mapped[int | None] = mapped_column(BigId)
    dispute_id: Mapped[int | None] = mapped_column(BigId)
    # Both are given after the commit (``events/positions.py``) and never change: the place in the feed, and the
    # consultation's reference as it was then.
    position: Mapped[int | None] = mapped_column(BigId)
    consultation_reference: Mapped[str | None] = mapped_column(String(64))

    # They only fill in the ids above, and let the payment be written before its events: a new refund has no id before
    # it is written.
    payment: Mapped["Payment"] = relationship(lazy="raise")
    refund: Mapped["Refund | None"] = relationship(
        primaryjoin="foreign(PaymentEvent.refund_id) == Refund.id", lazy="raise"
    )
    dispute: Mapped["Dispute | None"] = relationship(
        primaryjoin="foreign(PaymentEvent.dispute_id) == Dispute.id", lazy="raise"
    )


@event.listens_for(PaymentEvent, "after_insert")
def _log_event(_mapper: object, _connection: object, payment_event: PaymentEvent) -> None:
    """Log every line of the audit trail. ``create`` inserts a payment's first event by SQL, and logs it itself."""
    if payment_event.event in _LOGGED_ELSEWHERE:
        return
    log_event = log.info if payment_event.event in _ROUTINE else log.warning
    facts: dict[str, Any] = {
        "payment_id": payment_event.payment_id,
        "from_status": payment_event.from_status,
        "to_status": payment_event.to_status,
        "version": payment_event.version,
        "actor": payment_event.actor,
    }
    if payment_event.reference is not None:
        facts["reference"] = payment_event.reference
    after_commit(payment_event, lambda: log_event(_log_text(payment_event.event), **facts))


def _log_text(name: str) -> str:
    """``payment.completed`` is logged as ``Payment: confirmed``, the name of the request that completes it."""
    subject, _, verb = name.partition(".")
    return f"{subject.capitalize()}: {'confirmed' if name == 'payment.completed' else verb.replace('_', ' ')}"
