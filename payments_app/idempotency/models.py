"""The rows that remember which request an idempotency key was used for, and what was answered."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, PrimaryKeyConstraint, SmallInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.database import Base, BigId, UtcDateTime


class IdempotencyKey(Base):
    """One key of one user, and the one effect it had. Written in the transaction of that effect, or not at all.

    ``request`` and ``response_body`` may be dropped once old; the rest stays for ever, and so does the promise.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "key", name="pk_idempotency_keys"),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_idempotency_keys_user"),
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_idempotency_keys_payment"),
        CheckConstraint("length(request_hash) = 64", name="request_hash_sha256"),
    )

    user_id: Mapped[int] = mapped_column(BigId)
    key: Mapped[str] = mapped_column(String(255))
    operation: Mapped[str] = mapped_column(String(16))
    # The validated request as canonical JSON, and the SHA-256 of it and the operation, in hexadecimal.
    request: Mapped[str | None] = mapped_column(Text)
    request_hash: Mapped[str] = mapped_column(String(64))
    payment_id: Mapped[int] = mapped_column(BigId)
    # Of a refund; null for every other operation.
    refund_id: Mapped[int | None] = mapped_column(BigId)
    response_status: Mapped[int] = mapped_column(SmallInteger)
    response_body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
