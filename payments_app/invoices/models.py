"""The invoice and the tax record of a payment."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CHAR, CheckConstraint, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime, in_check


class InvoiceStatus(StrEnum):
    """``void``: the payment ended unpaid. ``refunded``: the whole payment was refunded."""

    PENDING = "pending"
    PAID = "paid"
    REFUNDED = "refunded"
    VOID = "void"


class TaxBasis(StrEnum):
    """What the tax is a rate of: ``amount``: of the amount; ``included``: the amount contains it."""

    AMOUNT = "amount"
    INCLUDED = "included"


class Invoice(Base):
    """The invoice of a payment: created with the payment, and changed only with it, under the payment's version."""

    __tablename__ = "invoices"
    __table_args__ = (
        UniqueConstraint("invoice_number", name="uq_invoices_invoice_number"),
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_invoices_payment"),
        Index("ix_invoices_payment", "payment_id"),
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint(in_check("status", InvoiceStatus), name="status_known"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    payment_id: Mapped[int] = mapped_column(BigId)
    invoice_number: Mapped[str] = mapped_column(String(64))
    amount_minor: Mapped[int] = mapped_column(BigId)
    currency: Mapped[str] = mapped_column(CHAR(3))
    status: Mapped[str] = mapped_column(String(16))
    issued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    paid_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    def pay(self, at: datetime) -> None:
        self.status = InvoiceStatus.PAID
        self.paid_at = at

    def refund(self) -> None:
        self.status = InvoiceStatus.REFUNDED

    def void(self) -> None:
        self.status = InvoiceStatus.VOID


class TaxRecord(Base):
    """The tax on a payment, calculated when the payment was created. It never changes."""

    __tablename__ = "tax_records"
    __table_args__ = (
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_tax_records_payment"),
        Index("ix_tax_records_payment", "payment_id"),
        CheckConstraint("tax_rate_basis_points BETWEEN 0 AND 10000", name="rate_a_fraction"),
        CheckConstraint("taxable_amount_minor > 0 AND amount_minor >= 0", name="amounts_not_negative"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    payment_id: Mapped[int] = mapped_column(BigId)
    tax_type: Mapped[str] = mapped_column(String(16))
    tax_rate_basis_points: Mapped[int]
    # PAYMENT_TAX_BASIS as it was then. The default lets older releases, which do not know the column, still insert.
    tax_basis: Mapped[str] = mapped_column(String(16), server_default=TaxBasis.AMOUNT.value)
    taxable_amount_minor: Mapped[int] = mapped_column(BigId)
    amount_minor: Mapped[int] = mapped_column(BigId)
    status: Mapped[str] = mapped_column(String(16))


def invoice_number(issued_at: datetime, payment_id: int) -> str:
    """Such as ``INV-20260131093000-17``: time of issue in UTC, and payment id. Unique, because the payment's id is."""
    return f"INV-{issued_at:%Y%m%d%H%M%S}-{payment_id}"
