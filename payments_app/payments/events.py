"""The audit trail of payments."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.database import Base, BigId, UtcDateTime


@dataclass(frozen=True, slots=True)
class Deed:
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
