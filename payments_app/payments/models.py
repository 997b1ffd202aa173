"""Payments: their statuses, the constraints that keep them honest, and the verbs that change them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import (
    CHAR,
    BindParameter,
    CheckConstraint,
    ColumnElement,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    and_,
    bindparam,
    text,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, WriteOnlyMapped, mapped_column, relationship

from payments_app.database import Base, BigId, UtcDateTime, one_of
from payments_app.errors import InvalidTransition
from payments_app.invoices.models import Invoice, TaxRecord


class PaymentStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


# A payment in one of these occupies its consultation; one that is soft-deleted does not.
ACTIVE: Final = (
    PaymentStatus.PENDING,
    PaymentStatus.PROCESSING,
    PaymentStatus.COMPLETED,
    PaymentStatus.PARTIALLY_REFUNDED,
)
ENDED_UNPAID: Final = (PaymentStatus.FAILED, PaymentStatus.CANCELLED, PaymentStatus.EXPIRED)
PAID: Final = (PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED)

# Every move there is. Late money may complete a payment that failed or expired, while its consultation is free.
MOVES: Final[dict[str, frozenset[PaymentStatus]]] = {
    PaymentStatus.PENDING: frozenset({PaymentStatus.PROCESSING, PaymentStatus.COMPLETED, *ENDED_UNPAID}),
    PaymentStatus.PROCESSING: frozenset({PaymentStatus.COMPLETED, *ENDED_UNPAID}),
    PaymentStatus.COMPLETED: frozenset({PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED}),
    PaymentStatus.PARTIALLY_REFUNDED: frozenset({PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED}),
    PaymentStatus.REFUNDED: frozenset(),
    PaymentStatus.FAILED: frozenset({PaymentStatus.COMPLETED}),
    PaymentStatus.EXPIRED: frozenset({PaymentStatus.COMPLETED}),
    PaymentStatus.CANCELLED: frozenset(),
}

# The predicate of the index below. An ON CONFLICT that names another text finds no index on PostgreSQL.
ACTIVE_PREDICATE: Final = text(f"{one_of('status', ACTIVE)} AND deleted_at IS NULL")


@dataclass(frozen=True, slots=True)
class Deed:
    """Who does something, in which request, and when: what an event remembers beside the change itself."""

    actor: str
    request_id: str | None
    at: datetime


class Payment(Base):
    """One attempt to pay one consultation. Amounts in minor units; a row changes only through the verbs below."""

    __tablename__ = "payments"
    __table_args__ = (
        # Refers to both columns, so that a payment is its consultation's patient's, whatever the code believes.
        ForeignKeyConstraint(
            ["consultation_id", "user_id"],
            ["consultations.id", "consultations.patient_id"],
            name="fk_payments_consultation_patient",
        ),
        # The last line of defence: one active payment per consultation, whoever asks, however often, at once.
        Index(
            "uq_payments_active_consultation",
            "consultation_id",
            unique=True,
            postgresql_where=ACTIVE_PREDICATE,
            sqlite_where=ACTIVE_PREDICATE,
        ),
        # One transaction at a gateway pays one payment. Nulls are distinct on both databases.
        UniqueConstraint("gateway", "payment_method", "transaction_id", name="uq_payments_transaction"),
        Index("ix_payments_user_history", "user_id", "created_at", "id"),
        Index("ix_payments_history", "created_at", "id"),
        # For staff who look for the few that are refunded among the many that are not.
        Index("ix_payments_status_history", "status", "created_at", "id"),
        Index("ix_payments_consultation_user", "consultation_id", "user_id"),
        CheckConstraint(one_of("status", PaymentStatus), name="status_known"),
        CheckConstraint("version >= 0", name="version_not_negative"),
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint(
            "received_minor >= 0 AND refund_reserved_minor >= 0 AND refunded_minor >= 0", name="money_not_negative"
        ),
        # What is on its way back and what is back already never exceed what came.
        CheckConstraint("refund_reserved_minor + refunded_minor <= received_minor", name="refunds_within_received"),
        CheckConstraint(
            f"NOT ({one_of('status', PAID)}) OR (received_minor > 0 AND transaction_id IS NOT NULL"
            " AND completed_at IS NOT NULL)",
            name="paid_has_money",
        ),
        CheckConstraint(
            f"deleted_at IS NULL OR ({one_of('status', ENDED_UNPAID)} AND received_minor = 0)",
            name="deleted_without_money",
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    user_id: Mapped[int] = mapped_column(BigId)
    consultation_id: Mapped[int] = mapped_column(BigId)
    amount_minor: Mapped[int] = mapped_column(BigId)
    currency: Mapped[str] = mapped_column(CHAR(3))
    payment_method: Mapped[str] = mapped_column(String(32))
    gateway: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(32))
    transaction_id: Mapped[str | None] = mapped_column(String(255))
    receipt_url: Mapped[str | None] = mapped_column(String(2048))
    received_minor: Mapped[int] = mapped_column(BigId)
    # Refunds that are pending or whose fate is unknown, and refunds that succeeded.
    refund_reserved_minor: Mapped[int] = mapped_column(BigId)
    refunded_minor: Mapped[int] = mapped_column(BigId)
    needs_review: Mapped[bool]
    version: Mapped[int] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    invoices: Mapped[list[Invoice]] = relationship(order_by=Invoice.id)
    tax_records: Mapped[list[TaxRecord]] = relationship(order_by=TaxRecord.id)
    # Only ever added to here; the trail is read by its own query.
    events: WriteOnlyMapped["PaymentEvent"] = relationship()

    __mapper_args__ = {  # SQLAlchemy reads it once, as a plain dict
        "version_id_col": version,
        "version_id_generator": lambda version: 0 if version is None else version + 1,
    }

    @hybrid_property
    def is_active(self) -> bool:
        """Whether this payment occupies its consultation."""
        return self.status in ACTIVE and self.deleted_at is None

    @is_active.inplace.expression
    @classmethod
    def _is_active_expression(cls) -> ColumnElement[bool]:
        # The statuses as literals, not as parameters, so that the planner sees the index's own predicate.
        statuses: BindParameter[str] = bindparam("active_statuses", list(ACTIVE), expanding=True, literal_execute=True)
        return and_(cls.status.in_(statuses), cls.deleted_at.is_(None))

    @property
    def refundable_minor(self) -> int:
        """What came and is neither back nor on its way back."""
        return self.received_minor - self.refund_reserved_minor - self.refunded_minor

    def complete(self, transaction_id: str, *, receipt_url: str | None, deed: Deed) -> None:
        """The money is there: all of it.

        Raises:
            InvalidTransition: the payment's status does not allow it (409).
        """
        self._move(PaymentStatus.COMPLETED, "payment.completed", deed)
        self.transaction_id = transaction_id
        self.receipt_url = receipt_url
        self.received_minor = self.amount_minor
        self.completed_at = deed.at
        for invoice in self.invoices:
            invoice.pay(deed.at)

    def cancel(self, deed: Deed) -> None:
        """Give the payment up before any money moved.

        Raises:
            InvalidTransition: it is not pending (409); money on its way cannot be called back by us.
        """
        if self.status != PaymentStatus.PENDING:
            raise InvalidTransition(payment_status=self.status)
        self._move(PaymentStatus.CANCELLED, "payment.cancelled", deed)
        for invoice in self.invoices:
            invoice.void()

    def was_completed_by(self, transaction_id: str) -> bool:
        """Whether confirming with this transaction again is a retry of what happened already."""
        return self.completed_at is not None and self.transaction_id == transaction_id

    def _move(self, to: PaymentStatus, event: str, deed: Deed) -> None:
        if to not in MOVES[self.status]:
            raise InvalidTransition(payment_status=self.status)
        self.events.add(
            PaymentEvent(
                event=event,
                from_status=self.status,
                to_status=to,
                version=self.version + 1,  # what the flush of this effect will make it
                actor=deed.actor,
                request_id=deed.request_id,
                created_at=deed.at,
            )
        )
        self.status = to
        self.updated_at = deed.at


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


class GatewaySession(Base):
    """A checkout opened at a gateway for a payment. A row of its own: opening one does not change the payment."""

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
