"""The audit trail of payments."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String, event
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime
from payments_app.db.transaction import after_commit
from payments_app.observability.logging import get_logger

log = get_logger(__name__)

# What happens every day; whatever else happens to a payment is told as a warning, because staff have to look at it.
_ORDINARY = frozenset(
    {
        "payment.processing",
        "payment.completed",
        "payment.cancelled",
        "payment.expired",
        "payment.failed",
        "payment.attempt_failed",
        "payment.reviewed",
    }
)
# The refund tells these itself, with its own id.
_TOLD_BY_REFUND = frozenset(
    f"refund.{word}" for word in ("requested", "recorded", "pending", "unknown", "succeeded", "failed")
)


@dataclass(frozen=True, slots=True)
class AuditContext:
    """Who does something, in which request, and when: what an event remembers beside the change itself."""

    actor: str
    request_id: str | None
    at: datetime


class PaymentEvent(Base):
    """One line of the audit trail: who did what when, and which version of the payment it made."""

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
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


@event.listens_for(PaymentEvent, "after_insert")
def _log_event(_mapper: object, _connection: object, happened: PaymentEvent) -> None:
    """Every line of the trail is a line of the log; of a payment's first one, ``create`` sees to both."""
    if happened.event in _TOLD_BY_REFUND:
        return
    say = log.info if happened.event in _ORDINARY else log.warning
    facts = {
        "payment_id": happened.payment_id,
        "from_status": happened.from_status,
        "to_status": happened.to_status,
        "version": happened.version,
        "actor": happened.actor,
    }
    after_commit(happened, lambda: say(_in_words(happened.event), **facts))


def _in_words(name: str) -> str:
    """``Payment: confirmed`` of ``payment.completed``, which is what whoever pays calls it."""
    what, _, word = name.partition(".")
    return f"{what.capitalize()}: {'confirmed' if name == 'payment.completed' else word.replace('_', ' ')}"
