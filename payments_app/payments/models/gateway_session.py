"""Checkout sessions at gateways."""

from datetime import datetime

from sqlalchemy import (
    CHAR,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime
from payments_app.gateways.base import SessionStatus

# Statuses of a row besides those of a session at its gateway, which gateways/base.py has.
OPENING = "opening"
LOST = "lost"

# Nobody is to pay by it any more, or nobody knows it.
ENDED = (LOST, SessionStatus.CANCELLED, SessionStatus.EXPIRED, SessionStatus.SUCCEEDED)


class GatewaySession(Base):
    """A checkout session at a gateway. It has a row of its own, because opening one does not change the payment."""

    __tablename__ = "gateway_sessions"
    __table_args__ = (
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_gateway_sessions_payment"),
        UniqueConstraint("gateway", "reference", name="uq_gateway_sessions_reference"),
        Index(
            "uq_gateway_sessions_open",
            "payment_id",
            unique=True,
            postgresql_where=text("status = 'open'"),
            sqlite_where=text("status = 'open'"),
        ),
        Index(
            "uq_gateway_sessions_opening",
            "payment_id",
            unique=True,
            postgresql_where=text("status = 'opening'"),
            sqlite_where=text("status = 'opening'"),
        ),
        Index(
            "uq_gateway_sessions_number",
            "payment_id",
            "number",
            unique=True,
            postgresql_where=text("number IS NOT NULL"),
            sqlite_where=text("number IS NOT NULL"),
        ),
        CheckConstraint(
            "status IN ('opening', 'open', 'succeeded', 'cancelled', 'expired', 'lost')", name="status_known"
        ),
        CheckConstraint("status NOT IN ('open', 'succeeded') OR reference IS NOT NULL", name="reference_known"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    payment_id: Mapped[int] = mapped_column(BigId)
    gateway: Mapped[str] = mapped_column(String(32))
    # None: the gateway has not named it yet, or its response was lost.
    reference: Mapped[str | None] = mapped_column(String(255))
    # opening: the call to the gateway is about to be made, or its response was lost and the gateway remembers the key.
    # lost: as before, and the gateway remembers no keys. expired: it ended without payment.
    status: Mapped[str] = mapped_column(String(16))
    # What the gateway was asked for, so that a repeated call is the same to the byte; None in rows of an earlier
    # release, and of sessions that a webhook named first. ``number`` counts a payment's sessions from 1.
    number: Mapped[int | None] = mapped_column(Integer)
    amount_minor: Mapped[int | None] = mapped_column(BigId)
    currency: Mapped[str | None] = mapped_column(CHAR(3))
    description: Mapped[str | None] = mapped_column(String(200))
    language: Mapped[str | None] = mapped_column(String(8))
    return_url: Mapped[str | None] = mapped_column(String(2048))
    # Nobody can pay by it after that. None: it does not end by itself.
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Until then the request that opens it is at work.
    leased_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # When the gateway was last asked what became of it.
    refreshed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    def move_on(self, status: str, at: datetime) -> None:
        """Take another status; a session that has ended keeps its own."""
        if self.status not in ENDED:
            self.status, self.updated_at = str(status), at

    def take_over(self, other: "GatewaySession", at: datetime) -> None:
        """Know what another row knew of the same session."""
        self.move_on(other.status, at)
