"""The audit trail of payments, and its log events."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, String, event
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime
from payments_app.db.transaction import after_commit
from payments_app.observability.logging import get_logger

log = get_logger(__name__)

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
        "dispute.updated",
        "refunds.released",
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
    """The actor, request id and time of a change, which its event stores."""

    actor: str
    request_id: str | None
    at: datetime


class PaymentEvent(Base):
    """One line of the audit trail: actor, event, statuses, time, and the payment's version after the change."""

    __tablename__ = "payment_events"
    __table_args__ = (
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_payment_events_payment"),
        Index("ix_payment_events_payment", "payment_id", "id"),
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
