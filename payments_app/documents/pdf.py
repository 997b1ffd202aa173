"""Draws an invoice or a credit note as a PDF, in the reader's language; made without a database.

The same state gives the same bytes: the file's time is that of the invoice or the note.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from babel.dates import format_datetime
from babel.numbers import format_currency, format_percent
from fpdf import FPDF
from fpdf.bidi import BidiParagraph
from fpdf.fonts import TTFFont

from config import BASIS_POINTS_PER_ONE
from payments_app import money
from payments_app.documents.repository import IssuedNote, Paper
from payments_app.gateways.registry import find_method
from payments_app.i18n.locale import reader_language, translate
from payments_app.i18n.messages import N_, LocalizedMessage
from payments_app.invoices.models import InvoiceStatus, TaxBasis
from payments_app.payments.models.credit_note import CreditNoteStatus

FONTS = Path(__file__).with_name("fonts")
FONT = "DejaVu"

# Drawn for every character that the font does not have, so that a reader sees that there is one.
MISSING = "\N{WHITE SQUARE}"

# Millimetres; point sizes of letters.
MARGIN, LABEL_WIDTH, LINE_HEIGHT = 20, 55, 6.5
SIZE, SMALL, LARGE = 10, 8, 20
GREY, BLACK = 90, 0

STATUSES = {
    InvoiceStatus.PENDING: N_("due"),
    InvoiceStatus.PAID: N_("paid"),
    InvoiceStatus.REFUNDED: N_("refunded"),
    InvoiceStatus.VOID: N_("void"),
}
NOT_ACCREDITED = N_(
    "This is the clinic's own document. It is not an official receipt that a tax authority has accredited."
)
VOID_NOTE = N_("Void: the refund failed later, and the money came back to the clinic.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterhead:
    """The clinic, and how it writes times. ``is_accredited``: by a tax authority, for documents like these."""

    name: str | None
    address: str | None
    tax_number: str | None
    time_zone: ZoneInfo
    is_accredited: bool


def draw(paper: Paper, letterhead: Letterhead) -> bytes:
    """The credit note as a PDF if the paper has one, else the invoice."""
    return _draw_invoice(paper, letterhead) if paper.note is None else _draw_credit_note(paper, paper.note, letterhead)


def _draw_invoice(paper: Paper, letterhead: Letterhead) -> bytes:
    sheet = _Sheet(translate(N_("Invoice")), paper.invoice_number, paper.issued_at, letterhead)
    sheet.rows(_dated(paper, sheet))
    sheet.rows(_subject(paper, sheet))
    sheet.rows(_amounts(paper, sheet), amounts=True)
    sheet.total(N_("Total"), sheet.amount(paper.amount_minor, paper.currency))
    for note in paper.credit_notes:
        text = LocalizedMessage("Credit note %(number)s", number=note.number)
        sign = "" if note.status == CreditNoteStatus.VOID else "-"
        value = sign + sheet.amount(note.amount_minor, paper.currency)
        if note.status == CreditNoteStatus.VOID:
            value = f"{value} ({translate(N_('void'))})"
        sheet.row(translate(text), value, is_amount=True)
    return sheet.finish()


def _draw_credit_note(paper: Paper, note: IssuedNote, letterhead: Letterhead) -> bytes:
    sheet = _Sheet(translate(N_("Credit note")), note.number, note.issued_at, letterhead)
    is_void = note.status == CreditNoteStatus.VOID
    if is_void:
        sheet.remark(translate(VOID_NOTE))
    sheet.rows(
        [
            (N_("Issued"), sheet.time(note.issued_at)),
            (N_("For invoice"), f"{paper.invoice_number}, {sheet.time(paper.issued_at)}"),
        ]
    )
    sheet.rows([*_subject(paper, sheet), *([(N_("Reason"), paper.reason)] if paper.reason else [])])
    sheet.rows([(_tax_text(paper), sheet.amount(paper.note_tax_minor, paper.currency))], amounts=True)
    sheet.total(N_("void") if is_void else N_("Refunded"), sheet.amount(note.amount_minor, paper.currency))
    return sheet.finish()


def _dated(paper: Paper, sheet: "_Sheet") -> Iterator[tuple[str, str]]:
    yield N_("Issued"), sheet.time(paper.issued_at)
    yield N_("Status"), translate(STATUSES[InvoiceStatus(paper.status)])
    if paper.paid_at is not None:
        yield N_("Paid on"), sheet.time(paper.paid_at)


def _subject(paper: Paper, sheet: "_Sheet") -> Iterator[tuple[str, str]]:
    consultation = translate(LocalizedMessage("Consultation %(id)s", id=paper.consultation_id))
    method = find_method(paper.payment_method)
    yield N_("Patient"), paper.patient_name
    yield N_("For"), paper.description or consultation
    if paper.description is not None:
        yield N_("Consultation"), str(paper.consultation_id)
    if paper.consultation_reference is not None:
        yield N_("Booking"), paper.consultation_reference
    if paper.starts_at is not None:
        yield N_("On"), sheet.time(paper.starts_at)
    yield N_("Payment"), str(paper.payment_id)
    yield N_("Payment method"), paper.payment_method if method is None else translate(method.name)
    if paper.transaction_id is not None:
        yield N_("Transaction"), paper.transaction_id


def _amounts(paper: Paper, sheet: "_Sheet") -> Iterator[tuple[str, str]]:
    if paper.tax_basis == TaxBasis.INCLUDED:
        yield N_("Without tax"), sheet.amount(paper.taxable_minor, paper.currency)
    yield _tax_text(paper), sheet.amount(paper.tax_minor, paper.currency)


def _tax_text(paper: Paper) -> str:
    rate = format_percent(paper.tax_rate_basis_points / BASIS_POINTS_PER_ONE, "#,##0.##%", reader_language())
    return LocalizedMessage("VAT %(rate)s", rate=rate)


class _Sheet:
    """A page with the clinic's head and the document's title; rows are added from top to bottom."""

    def __init__(self, title: str, number: str, at: datetime, letterhead: Letterhead) -> None:
        self._letterhead = letterhead
        self._pdf = pdf = FPDF(format="A4")
        pdf.set_creation_date(at)
        pdf.set_lang(reader_language())
        for style, file in (("", "DejaVuSans.ttf"), ("B", "DejaVuSans-Bold.ttf")):
            pdf.add_font(FONT, style, FONTS / file)
        pdf.set_font(FONT, "", SIZE)
        pdf.set_title(self._drawable(f"{title} {number}"))
        pdf.set_margins(MARGIN, MARGIN)
        pdf.set_auto_page_break(auto=True, margin=MARGIN)
        pdf.add_page()
        self._text(letterhead.name or "", style="B", size=SIZE + 2)
        self._text(letterhead.address or "", size=SMALL + 1)
        if letterhead.tax_number is not None:
            number_text = LocalizedMessage("Tax number %(number)s", number=letterhead.tax_number)
            self._text(translate(number_text), size=SMALL + 1)
        pdf.ln(8)
        self._text(title, style="B", size=LARGE)
        self._text(number, size=SIZE + 1)
        pdf.ln(2)

    def time(self, at: datetime) -> str:
        """Day and time in the clinic's time zone, with the zone."""
        return format_datetime(at, "d MMMM y, HH:mm (z)", tzinfo=self._letterhead.time_zone, locale=reader_language())

    def amount(self, amount_minor: int, currency: str) -> str:
        """As browsers write it: with a space between a currency's letters and the amount, which Babel leaves out."""
        formatted = format_currency(money.to_major(amount_minor), currency, locale=reader_language())
        return re.sub(r"(?<=[A-Za-z])(?=[0-9])", "\N{NO-BREAK SPACE}", formatted)

    def rows(self, rows: Iterator[tuple[str, str]] | Sequence[tuple[str, str]], *, amounts: bool = False) -> None:
        """A group of rows, with a line above it. Labels are translated here."""
        self._rule()
        for label, value in rows:
            self.row(translate(label), value, is_amount=amounts)

    def row(self, label: str, value: str, *, is_amount: bool = False, grey: int = GREY) -> None:
        pdf = self._pdf
        if pdf.will_page_break(LINE_HEIGHT):
            pdf.add_page()
        pdf.set_text_color(grey)
        pdf.cell(LABEL_WIDTH, LINE_HEIGHT, self._drawable(label))
        pdf.set_text_color(BLACK)
        align = "R" if is_amount else "L"
        pdf.multi_cell(0, LINE_HEIGHT, self._drawable(value), align=align, new_x="LMARGIN", new_y="NEXT")

    def total(self, label: str, amount: str) -> None:
        self._rule()
        self._pdf.set_font(FONT, "B", SIZE + 3)
        self.row(translate(label), amount, is_amount=True, grey=BLACK)
        self._pdf.set_font(FONT, "", SIZE)
        self._pdf.ln(2)

    def remark(self, text: str) -> None:
        self._text(text, style="B", size=SIZE + 1)
        self._pdf.ln(2)

    def finish(self) -> bytes:
        if not self._letterhead.is_accredited:
            self._pdf.ln(8)
            self._pdf.set_text_color(GREY)
            self._text(translate(NOT_ACCREDITED), size=SMALL)
        return bytes(self._pdf.output())

    def _rule(self) -> None:
        pdf = self._pdf
        pdf.ln(2)
        pdf.set_draw_color(200)
        pdf.line(pdf.l_margin, pdf.get_y(), pdf.w - pdf.r_margin, pdf.get_y())
        pdf.ln(2)

    def _text(self, text: str, *, style: str = "", size: int = SIZE) -> None:
        if not text:
            return
        self._pdf.set_font(FONT, style, size)
        self._pdf.multi_cell(0, size / 2, self._drawable(text), align="L", new_x="LMARGIN", new_y="NEXT")
        self._pdf.set_font(FONT, "", SIZE)

    def _drawable(self, text: str) -> str:
        """The text with letters of the font alone, in the order in which they are drawn from left to right."""
        font = self._pdf.fonts[FONT.lower()]
        known: Collection[int] = font.cmap if isinstance(font, TTFFont) else ()
        drawn = "".join(
            each if each.isprintable() and ord(each) in known else " " if each.isspace() else MISSING for each in text
        )
        return drawn if drawn.isascii() else BidiParagraph(drawn).get_reordered_string()
