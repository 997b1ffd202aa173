"""The webhook inbox: one row per event of a gateway."""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime


class WebhookEvent(Base):
    """A webhook event, stored in the same transaction as its effect.

    Of the body only the identifiers are stored: the rest holds a client secret and card data.
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
    # The gateway's id of the object that the event is about.
    reference: Mapped[str] = mapped_column(String(255))
    # None: the event is about none of our payments.
    payment_id: Mapped[int | None] = mapped_column(BigId)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
