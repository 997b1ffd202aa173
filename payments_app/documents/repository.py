"""Reads what stands on an invoice, on a credit note and in the export, each in one short transaction."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from payments_app.accounts.caller import Caller
from payments_app.accounts.models import User
from payments_app.consultations.models import Consultation
from payments_app.db.transaction import read_transaction
from payments_app.errors import NotFound
from payments_app.invoices.models import Invoice, TaxRecord
from payments_app.payments import queries
from payments_app.payments.models.credit_note import CreditNote, credit_note_number
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedNote:
    """A credit note as its invoice and the export list it."""

    number: str
    status: str
    amount_minor: int
    issued_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """What stands on an invoice; on a credit note also ``note``, with its own part of the tax and its reason."""

    invoice_number: str
    status: str
    issued_at: datetime
    paid_at: datetime | None
    amount_minor: int
    currency: str
    tax_rate_basis_points: int
    tax_basis: str
    taxable_minor: int
    tax_minor: int
    patient_name: str
    consultation_id: int
    consultation_reference: str | None
    description: str | None
    starts_at: datetime | None
    payment_id: int
    payment_method: str
    transaction_id: str | None
    credit_notes: Sequence[IssuedNote]
    note: IssuedNote | None = None
    note_tax_minor: int = 0
    reason: str | None = None


@read_transaction
def get_invoice(session: Session, invoice_id: int, *, caller: Caller) -> Paper:
    """What stands on an invoice.

    Raises:
        NotFound: no such invoice, or for a payer one of another consultation (404).
        Forbidden: it is another patient's (403).
    """
    return _paper(session, _invoices().where(Invoice.id == invoice_id), caller)


@read_transaction
def get_credit_note(session: Session, credit_note_id: int, *, caller: Caller) -> Paper:
    """What stands on a credit note.

    Raises:
        NotFound: no such credit note, or for a payer one of another consultation (404).
        Forbidden: it is another patient's (403).
    """
    with_note = _invoices().join(CreditNote, CreditNote.invoice_id == Invoice.id)
    with_note = with_note.join(Refund, Refund.credit_note_id == CreditNote.id).add_columns(CreditNote, Refund.reason)
    return _paper(session, with_note.where(CreditNote.id == credit_note_id), caller)


def _invoices() -> Select[Any]:
    return (
        select(Invoice, Payment, TaxRecord, Consultation, User.name)  # type: ignore[return-value]  # others are added
        .join(Payment, Payment.id == Invoice.payment_id)
        .join(TaxRecord, TaxRecord.payment_id == Payment.id)
        .join(Consultation, Consultation.id == Payment.consultation_id)
        .join(User, User.id == Payment.user_id)
        .where(Payment.deleted_at.is_(None))
    )


def _paper(session: Session, query: Select[Any], caller: Caller) -> Paper:
    found = session.execute(query).one_or_none()
    if found is None:
        raise NotFound
    invoice, payment, tax, consultation, patient_name, *of_note = found
    caller.require_access(NotFound, patient_id=payment.user_id, consultation_id=payment.consultation_id)
    more: dict[str, Any] = {}
    if of_note:
        note, reason = of_note
        more = {"note": _issued(note), "note_tax_minor": note.tax_minor, "reason": reason}
    return Paper(
        invoice_number=invoice.invoice_number,
        status=invoice.status,
        issued_at=invoice.issued_at,
        paid_at=invoice.paid_at,
        amount_minor=invoice.amount_minor,
        currency=invoice.currency,
        tax_rate_basis_points=tax.tax_rate_basis_points,
        tax_basis=tax.tax_basis,
        taxable_minor=tax.taxable_amount_minor,
        tax_minor=tax.amount_minor,
        patient_name=patient_name,
        consultation_id=consultation.id,
        consultation_reference=consultation.reference,
        description=consultation.description,
        starts_at=consultation.starts_at,
        payment_id=payment.id,
        payment_method=payment.payment_method,
        transaction_id=payment.transaction_id,
        credit_notes=_notes_of(session, [payment.id])[payment.id],
        **more,
    )


def _notes_of(session: Session, payment_ids: Sequence[int]) -> dict[int, list[IssuedNote]]:
    """The credit notes of each payment, oldest first."""
    notes: defaultdict[int, list[IssuedNote]] = defaultdict(list)
    query = select(CreditNote).where(CreditNote.payment_id.in_(payment_ids)).order_by(CreditNote.id)
    for note in session.scalars(query):
        notes[note.payment_id].append(_issued(note))
    return notes


def _issued(note: CreditNote) -> IssuedNote:
    return IssuedNote(
        number=credit_note_number(note.series, note.number),
        status=note.status,
        amount_minor=note.amount_minor,
        issued_at=note.issued_at,
    )


@dataclass(frozen=True, slots=True)
class ExportedPayment:
    """A payment with what the export shows beside it."""

    payment: Any
    patient_name: str
    patient_email: str
    consultation_reference: str | None
    invoice_number: str
    tax_minor: int
    credit_notes: Sequence[IssuedNote]


@read_transaction
def list_exported(
    session: Session, filters: queries.Filter, *, caller: Caller
) -> tuple[list[ExportedPayment], queries.Filter | None]:
    """One page of the export, newest first, and the filter of the next one; None after the last one."""
    page = queries.read_page(session, filters, caller=caller)
    ids = [payment.id for payment in page.rows]
    beside = (
        select(
            Payment.id, User.name, User.email, Consultation.reference, Invoice.invoice_number, TaxRecord.amount_minor
        )
        .join(User, User.id == Payment.user_id)
        .join(Consultation, Consultation.id == Payment.consultation_id)
        .join(Invoice, Invoice.payment_id == Payment.id)
        .join(TaxRecord, TaxRecord.payment_id == Payment.id)
        .where(Payment.id.in_(ids))
    )
    known = {row[0]: row[1:] for row in session.execute(beside)} if ids else {}
    notes = _notes_of(session, ids) if ids else {}
    # A payment that was removed between the statements is left out: `payments prove` removes its own.
    rows = [
        ExportedPayment(payment, *known[payment.id], notes.get(payment.id, []))
        for payment in page.rows
        if payment.id in known
    ]
    if not page.has_more:
        return rows, None
    last = page.rows[-1]
    return rows, replace(filters, after=(last.created_at, last.id))
