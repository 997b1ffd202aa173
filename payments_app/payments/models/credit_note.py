"""Credit notes: one for each refund that succeeded of a payment whose invoice was paid, numbered without gaps."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    CHAR,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column, object_session

from payments_app import clock, money
from payments_app.accounts.scratch import SCRATCH_EMAILS
from payments_app.db.base import Base, BigId, UtcDateTime, in_check
from payments_app.db.statement import DirectStatement
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund

# The series of a number: what is printed before it. Notes of ``payments prove``, which removes them again, have a
# series of their own: otherwise they would leave gaps.
SERIES, SCRATCH_SERIES = "CN", "PROVE"


class CreditNoteStatus(StrEnum):
    """``void``: its refund failed after it had succeeded. The number stays taken."""

    ISSUED = "issued"
    VOID = "void"


class CreditNoteCounter(Base):
    """The last number of a series; its row is made with the first one."""

    __tablename__ = "credit_note_counters"
    __table_args__ = (CheckConstraint("last_number > 0", name="last_number_positive"),)

    series: Mapped[str] = mapped_column(String(8), primary_key=True)
    last_number: Mapped[int] = mapped_column(BigId)


class CreditNote(Base):
    """The credit note of one refund: issued with its success, and changed only with it, under the payment's version."""

    __tablename__ = "credit_notes"
    __table_args__ = (
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_credit_notes_payment"),
        ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name="fk_credit_notes_invoice"),
        UniqueConstraint("series", "number", name="uq_credit_notes_number"),
        Index("ix_credit_notes_payment", "payment_id"),
        Index("ix_credit_notes_invoice", "invoice_id"),
        CheckConstraint("number > 0", name="number_positive"),
        CheckConstraint("amount_minor > 0 AND tax_minor BETWEEN 0 AND amount_minor", name="tax_within_amount"),
        CheckConstraint(in_check("status", CreditNoteStatus), name="status_known"),
        CheckConstraint("(status = 'void') = (voided_at IS NOT NULL)", name="voided_when_void"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    payment_id: Mapped[int] = mapped_column(BigId)
    invoice_id: Mapped[int] = mapped_column(BigId)
    series: Mapped[str] = mapped_column(String(8))
    number: Mapped[int] = mapped_column(BigId)
    amount_minor: Mapped[int] = mapped_column(BigId)
    # The part of the amount that is tax.
    tax_minor: Mapped[int] = mapped_column(BigId)
    currency: Mapped[str] = mapped_column(CHAR(3))
    status: Mapped[str] = mapped_column(String(16))
    issued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    voided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @classmethod
    def of(cls, refund: Refund, at: datetime) -> "CreditNote":
        """The credit note of a refund whose payment's invoice was paid; it gets its number when it is inserted."""
        payment, invoice = refund.payment, refund.payment.invoices[0]
        issued = [note for note in payment.credit_notes if note.status == CreditNoteStatus.ISSUED]
        tax_minor = sum(record.amount_minor for record in payment.tax_records)
        return cls(
            payment_id=payment.id,
            invoice_id=invoice.id,
            amount_minor=refund.amount_minor,
            tax_minor=money.part_minor(
                tax_minor - sum(note.tax_minor for note in issued),
                part=refund.amount_minor,
                of=invoice.amount_minor - sum(note.amount_minor for note in issued),
            ),
            currency=invoice.currency,
            status=CreditNoteStatus.ISSUED,
            issued_at=at,
        )

    def void(self, at: datetime) -> None:
        self.status, self.voided_at = CreditNoteStatus.VOID, at


def credit_note_number(series: str, number: int) -> str:
    """Such as ``CN-000017``."""
    return f"{series}-{number:06d}"


def issue_or_void(refund: Refund, payment: Payment, at: datetime) -> None:
    """Give the refund its credit note if it has earned one, or void the one that it has if it failed."""
    if refund.has_failed:
        for note in payment.credit_notes if refund.credit_note_id is not None else ():
            if note.id == refund.credit_note_id and note.voided_at is None:
                note.void(at)
    elif refund.credit_note_id is None and refund.credit_note is None and refund.is_credited:
        refund.credit_note = CreditNote.of(refund, at)
        payment.credit_notes.append(refund.credit_note)


@event.listens_for(Session, "before_flush")
def _credit_refunds(session: Session, *_details: object) -> None:
    """The one place that every refund passes when it succeeds or fails, whoever has settled it.

    At a flush and not in a verb, because several reports may still change a refund's amount in one effect.
    """
    for refund in [row for row in (*session.new, *session.dirty) if isinstance(row, Refund)]:
        # The session holds what has not changed only weakly: the payment has to stay until the refund has looked at it.
        payment = refund.payment if refund.payment_id is None else session.get_one(Payment, refund.payment_id)
        issue_or_void(refund, payment, clock.now())


# The user decides about the series. The statement has no second way: a transaction that is rolled back gives its
# number back, and the next one gets it.
_NEXT_NUMBER = DirectStatement(
    text(
        """
    INSERT INTO credit_note_counters (series, last_number)
    SELECT CASE WHEN u.email LIKE :scratch THEN :scratch_series ELSE :series END, 1
    FROM payments p JOIN users u ON u.id = p.user_id WHERE p.id = :payment_id
    ON CONFLICT (series) DO UPDATE SET last_number = credit_note_counters.last_number + 1
    RETURNING series, last_number"""
    )
)


@event.listens_for(CreditNote, "before_insert")
def _number(_mapper: object, _connection: object, note: CreditNote) -> None:
    """Take the next number.

    All other notes wait for the counter's row until this transaction ends, so this is its last lock that another
    transaction may hold: the flush has written the payment before, and what comes after belongs to the payment or to
    the request alone.
    """
    names = {"scratch": SCRATCH_EMAILS, "scratch_series": SCRATCH_SERIES, "series": SERIES}
    session = object_session(note)
    assert session is not None  # noqa: S101  # for the type checker: a flushed row is in a session
    ((note.series, note.number),) = _NEXT_NUMBER.rows(session, {**names, "payment_id": note.payment_id})
