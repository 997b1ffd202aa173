"""Disputes: the patient's bank asks for money back, or has taken it back."""

from datetime import datetime
from typing import Final

from sqlalchemy import (
    CHAR,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    event,
    inspect,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime, in_check
from payments_app.db.transaction import after_commit
from payments_app.gateways.events import DisputeStatus, GatewayDispute
from payments_app.observability import metrics
from payments_app.observability.logging import get_logger
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment

log = get_logger(__name__)

# What the column holds.
MAX_REASON_LENGTH: Final = 64


# Nothing is refunded while a dispute is in one of these.
BLOCKING: Final = (DisputeStatus.NEEDS_RESPONSE, DisputeStatus.UNDER_REVIEW, DisputeStatus.LOST)
# The bank has not decided yet.
OPEN: Final = (DisputeStatus.INQUIRY, DisputeStatus.NEEDS_RESPONSE, DisputeStatus.UNDER_REVIEW)
# The clinic has to answer.
UNANSWERED: Final = (DisputeStatus.INQUIRY, DisputeStatus.NEEDS_RESPONSE)

# Events come late and in any order, and their times are whole seconds: the status alone says which is the newer one. A
# bank only goes this way. An inquiry may still become a dispute after it was closed, and a bank may yet take back money
# of a dispute that was won. Lost comes last: of two final statuses the one that blocks refunds is the safe one.
_RANKS: Final = {status: rank for rank, status in enumerate(DisputeStatus)}

_OPEN = text(in_check("status", OPEN))


class Dispute(Base):
    """One dispute of one payment, as its gateway last described it. Amounts in minor units. Changes with its payment,
    in one transaction that has the payment's row locked.
    """

    __tablename__ = "disputes"
    __table_args__ = (
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_disputes_payment"),
        UniqueConstraint("gateway", "reference", name="uq_disputes_reference"),
        Index("ix_disputes_payment", "payment_id", "id"),
        Index("ix_disputes_open", "id", postgresql_where=_OPEN, sqlite_where=_OPEN),
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint(in_check("status", DisputeStatus), name="status_known"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    payment_id: Mapped[int] = mapped_column(BigId)
    gateway: Mapped[str] = mapped_column(String(32))
    reference: Mapped[str] = mapped_column(String(255))
    amount_minor: Mapped[int] = mapped_column(BigId)
    currency: Mapped[str] = mapped_column(CHAR(3))
    # The gateway's own word for it, such as fraudulent.
    reason: Mapped[str | None] = mapped_column(String(MAX_REASON_LENGTH))
    status: Mapped[str] = mapped_column(String(16))
    # By when the clinic has to answer.
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # When we first heard of it.
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # When the gateway said what is written here, by the gateway's clock.
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    @classmethod
    def record(
        cls, payment: Payment, reported: GatewayDispute, *, told_at: datetime, context: AuditContext
    ) -> "Dispute":
        """A dispute that we hear of for the first time, in whatever state it is."""
        dispute = cls(
            payment_id=payment.id,
            gateway=payment.gateway,
            reference=reported.reference,
            status=str(reported.status),
            created_at=context.at,
            updated_at=told_at,
        )
        dispute._describe(reported)
        return dispute

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def blocks_refunds(self) -> bool:
        return self.status in BLOCKING

    @property
    def is_lost(self) -> bool:
        return self.status == DisputeStatus.LOST

    def is_before(self, status: DisputeStatus) -> bool:
        """Whether that status comes after the present one. If not, the event that names it is late, or repeats it."""
        return _RANKS[DisputeStatus(self.status)] < _RANKS[status]

    def move(self, reported: GatewayDispute, *, told_at: datetime) -> None:
        """Take over a status that comes after the present one, and all that is said with it."""
        self.status = str(reported.status)
        self.updated_at = max(self.updated_at, told_at)
        self._describe(reported)

    def refresh(self, reported: GatewayDispute, *, told_at: datetime) -> bool:
        """Take over what is said of the present status, unless newer news was heard before; whether it changed."""
        if self.status != reported.status or told_at < self.updated_at:
            return False
        before = (self.amount_minor, self.currency, self.reason, self.due_at)
        self._describe(reported)
        if (self.amount_minor, self.currency, self.reason, self.due_at) == before:
            return False
        self.updated_at = told_at
        return True

    def _describe(self, reported: GatewayDispute) -> None:
        self.amount_minor = reported.amount_minor
        self.currency = reported.currency
        self.reason = None if reported.reason is None else reported.reason[:MAX_REASON_LENGTH]
        self.due_at = reported.due_at


@event.listens_for(Dispute, "after_insert")
def _log_new(_mapper: object, _connection: object, dispute: Dispute) -> None:
    _log_status(dispute)


@event.listens_for(Dispute, "after_update")
def _log_change(_mapper: object, _connection: object, dispute: Dispute) -> None:
    if inspect(dispute).attrs.status.history.has_changes():
        _log_status(dispute)


def _log_status(dispute: Dispute) -> None:
    facts = {
        "dispute_id": dispute.id,
        "payment_id": dispute.payment_id,
        "gateway": dispute.gateway,
        "reference": dispute.reference,
    }
    happened = f"Dispute: {dispute.status.replace('_', ' ')}"
    say = log.warning if dispute.is_open or dispute.is_lost else log.info

    status = dispute.status

    def tell() -> None:
        metrics.DISPUTE_EVENTS.labels(status).inc()
        say(happened, **facts)

    after_commit(dispute, tell)
