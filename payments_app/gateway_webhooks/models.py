"""The inbox: what a gateway has told us, each event once."""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime


class WebhookEvent(Base):
    """A webhook event that was taken in, in the transaction of its effect.

    Of its body only what names it is kept: the rest holds a secret of the patient's device, and data of their card.
    """

    __tablename__ = "webhook_events"
    __table_args__ = (
        PrimaryKeyConstraint("gateway", "event_id", name="pk_webhook_events"),
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_webhook_events_payment"),
        Index("ix_webhook_events_payment", "payment_id"),
    )

    gateway: Mapped[str] = mapped_column(String(32))
    event_id: Mapped[str] = mapped_column(String(255))
    type: Mapped[str] = mapped_column(String(255))
    # The gateway's name for what the event is about.
    reference: Mapped[str] = mapped_column(String(255))
    # None: nothing that we know.
    payment_id: Mapped[int | None] = mapped_column(BigId)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
