"""The table of idempotency keys, with the request and the response of each."""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from payments_app.db.base import Base, BigId, UtcDateTime

if TYPE_CHECKING:
    from payments_app.payments.models.payment import Payment
    from payments_app.payments.models.refund import Refund


class IdempotencyKey(Base):
    """One key of one user, and its one effect. The row is written in the transaction of that effect, or not at all.

    ``request`` and ``response_body`` may be pruned when they are old. The rest of the row stays forever, so that a key
    never has a second effect.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "key", name="pk_idempotency_keys"),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_idempotency_keys_user"),
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_idempotency_keys_payment"),
        CheckConstraint("length(request_hash) = 64", name="request_hash_sha256"),
        # Only rows that are not pruned yet: prune searches for them.
        Index(
            "ix_idempotency_keys_whole",
            "created_at",
            postgresql_where=text("response_body IS NOT NULL"),
            sqlite_where=text("response_body IS NOT NULL"),
        ),
    )

    user_id: Mapped[int] = mapped_column(BigId)
    key: Mapped[str] = mapped_column(String(255))
    operation: Mapped[str] = mapped_column(String(16))
    # The validated request as canonical JSON, and the SHA-256 of it and the operation, in hexadecimal.
    request: Mapped[str | None] = mapped_column(Text)
    request_hash: Mapped[str] = mapped_column(String(64))
    payment_id: Mapped[int] = mapped_column(BigId)
    # Set for refunds; null for every other operation.
    refund_id: Mapped[int | None] = mapped_column(BigId)
    response_status: Mapped[int] = mapped_column(SmallInteger)
    response_body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    # Named by string: payments and refunds import this module, not the other way round.
    payment: Mapped["Payment"] = relationship(viewonly=True)
    # Joined without a foreign key: on SQLite, adding one would mean copying the table.
    refund: Mapped["Refund | None"] = relationship(
        primaryjoin="foreign(IdempotencyKey.refund_id) == Refund.id", viewonly=True
    )

    @property
    def status(self) -> str:
        """The present status of the refund or payment that the key created or changed."""
        return self.payment.status if self.refund is None else self.refund.status

    @property
    def was_pruned(self) -> bool:
        """Whether the request and the response were pruned."""
        return self.request is None

    @property
    def first_response(self) -> dict[str, Any] | None:
        """Status and body of the first response; None if it was pruned, or held a secret."""
        if self.response_body is None:
            return None
        return {"status": self.response_status, "body": json.loads(self.response_body)}
