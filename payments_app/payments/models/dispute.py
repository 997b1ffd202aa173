"""Disputes: the patient's bank asks for money back, or has taken it back."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CHAR, CheckConstraint, ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime, in_check


class DisputeStatus(StrEnum):
    """How far a dispute is. Inquiries block nothing; an open or lost dispute blocks refunds."""

    INQUIRY = "inquiry"
    INQUIRY_CLOSED = "inquiry_closed"
    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"


_OPEN = text(in_check("status", (DisputeStatus.INQUIRY, DisputeStatus.NEEDS_RESPONSE, DisputeStatus.UNDER_REVIEW)))


class Dispute(Base):
    """One dispute of one payment, as its gateway last described it. Amounts in minor units."""

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
    reason: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    # By when the clinic has to answer.
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
