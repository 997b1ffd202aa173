"""Checkout sessions at gateways."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime


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
        CheckConstraint("status IN ('open', 'succeeded', 'cancelled')", name="status_known"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    payment_id: Mapped[int] = mapped_column(BigId)
    gateway: Mapped[str] = mapped_column(String(32))
    reference: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
