"""Invoices and credit notes as PDF: who may read them, what stands on them, and that any name can be printed."""

import subprocess
from datetime import UTC, datetime
from shutil import which
from typing import Any

import pytest

from payments_app.documents import pdf as pdf_module
from tests.api.assertions import assert_problem
from tests.support.apps import app_with, engine_of
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.dialects import on_postgresql
from tests.support.links import payer_of
from tests.support.people import People, Person
from tests.support.rows import Rows
from tests.support.stripe_apps import refund

CLINIC = {
    "CLINIC_NAME": "Santos Clinic",
    "CLINIC_ADDRESS": "12 Mabini Street, Quezon City",
    "CLINIC_TAX_NUMBER": "123-456-789",
    "CLINIC_TIMEZONE": "Asia/Manila",
}

pytestmark = on_postgresql  # what is drawn is the same, whatever database the text comes from

needs_pdftotext = pytest.mark.skipif(which("pdftotext") is None, reason="needs pdftotext (poppler-utils)")


def paid(people: People, consultation: int = 5, amount: float = 5000) -> tuple[int, int]:
    """The ids of a payment that is paid, and of its invoice."""
    data = people.patient.pay(consultation, amount=amount).json["data"]
    assert people.patient.confirm(data["payment_id"], f"TXN-{consultation}").status_code == 200
    return data["payment_id"], data["invoice"]["id"]


def read(person: Person, path: str, language: str = "en") -> str:
    """The text of a PDF."""
    drawn: bytes = pdf(person, path, language).data
    made = subprocess.run(["pdftotext", "-layout", "-", "-"], input=drawn, capture_output=True, check=True)
    return made.stdout.decode()


def pdf(person: Person, path: str, language: str = "en") -> ApiResponse:
    answer = person.get(path, headers={"Accept-Language": language})
    assert (answer.status_code, answer.content_type) == (200, "application/pdf"), answer.text
    assert answer.data.startswith(b"%PDF-")
    return answer


def assert_has(text: str, *parts: str) -> None:
    blanks = text.replace("\N{NO-BREAK SPACE}", " ")
    missing = [part for part in parts if part not in blanks]
    assert not missing, (missing, text)


@pytest.fixture
def given_back(people: People) -> tuple[int, int, int]:
    """Payment, invoice and credit note: 5,000 was paid, and 1,250.50 of it refunded."""
    payment_id, invoice_id = paid(people)
    answer = refund(people.admin, payment_id, amount=1250.5, reason="The doctor was ill")
    return payment_id, invoice_id, answer.json["data"]["refund"]["credit_note_id"]


def test_owner_payer_and_admin_may_read_them_and_nobody_else(people: People, given_back: tuple[int, int, int]) -> None:
    _, invoice_id, note_id = given_back
    payer, stranger = payer_of(people, 5), payer_of(people, 6)
    for path in (f"/invoices/{invoice_id}.pdf", f"/credit-notes/{note_id}.pdf"):
        for person in (people.patient, people.admin, payer):
            pdf(person, path)
        assert_problem(people.other.get(path), 403, code="forbidden")
        assert_problem(people.booking.get(path), 403, code="forbidden")
        assert_problem(stranger.get(path), 404, code="not-found")
        assert_problem(people.anonymous().get(f"/api/v1{path}"), 401, code="not-authenticated")
    for path in ("/invoices/999999.pdf", "/credit-notes/999999.pdf", f"/invoices/{invoice_id}", "/invoices/0.pdf"):
        assert_problem(people.admin.get(path), 404, code="not-found")
    payer.revoke()
    assert_problem(payer.get(f"/invoices/{invoice_id}.pdf"), 401)


def test_the_same_state_gives_the_same_bytes_and_a_name_for_the_file(
    people: People, given_back: tuple[int, int, int], rows: Rows
) -> None:
    _, invoice_id, note_id = given_back
    number = rows.one("SELECT invoice_number FROM invoices")["invoice_number"]
    for path, name in ((f"/invoices/{invoice_id}.pdf", number), (f"/credit-notes/{note_id}.pdf", "CN-000001")):
        first, second = pdf(people.patient, path), pdf(people.admin, path)
        assert first.data == second.data
        assert first.headers["Content-Disposition"] == f'inline; filename="{name}.pdf"'
        assert (first.headers["Vary"], first.headers["Cache-Control"]) == ("Accept-Language", "no-store")
        assert pdf(people.patient, path, "id").data != first.data


@needs_pdftotext
def test_they_say_what_was_paid_and_given_back_in_the_readers_language(
    database: Database, people: People, given_back: tuple[int, int, int], rows: Rows
) -> None:
    payment_id, invoice_id, note_id = given_back
    rows.execute("UPDATE invoices SET issued_at = :at", at=rows.moment(datetime(2026, 1, 31, 17, 30, tzinfo=UTC)))
    number = rows.one("SELECT invoice_number FROM invoices")["invoice_number"]
    with app_with(database.url, **CLINIC) as app:
        patient = people.seen_by(app).patient
        invoice, faktur = (read(patient, f"/invoices/{invoice_id}.pdf", language) for language in ("en", "id"))
        note, nota = (read(patient, f"/credit-notes/{note_id}.pdf", language) for language in ("en", "id"))

    assert_has(invoice, "Santos Clinic", "12 Mabini Street, Quezon City", "Tax number 123-456-789", number)
    assert_has(invoice, "1 February 2026, 01:30", "paid", "patient@example.com", "Consultation 5", "Card", "TXN-5")
    assert_has(invoice, "VAT 12%", "₱600.00", "Total", "₱5,000.00", "Credit note CN-000001", "-₱1,250.50")
    assert_has(invoice, "It is not an official receipt")
    assert_has(faktur, "Faktur", "lunas", "PPN 12%", "PHP 5.000,00", "Nota kredit CN-000001", "bukan kuitansi resmi")
    assert_has(note, "Credit note", "CN-000001", number, "The doctor was ill", "VAT 12%", "₱150.06", "₱1,250.50")
    assert_has(nota, "Nota kredit", "PHP 1.250,50", "PHP 150,06")
    assert str(payment_id) in note


@needs_pdftotext
def test_a_note_whose_refund_failed_later_says_that_it_is_void(
    people: People, given_back: tuple[int, int, int], rows: Rows
) -> None:
    _, invoice_id, note_id = given_back
    rows.execute("UPDATE credit_notes SET status = 'void', voided_at = issued_at")

    assert_has(read(people.patient, f"/credit-notes/{note_id}.pdf"), "Void: the refund failed later")
    assert_has(read(people.patient, f"/invoices/{invoice_id}.pdf"), "₱1,250.50 (void)")


@needs_pdftotext
@pytest.mark.parametrize(
    ("amount", "taxable", "tax"), [("1120", 100_000, 12_000), ("1500.50", 133_973, 16_077), ("1000", 89_286, 10_714)]
)
def test_a_tax_that_the_amount_contains_is_kept_with_each_payment(
    *, database: Database, people: People, rows: Rows, amount: str, taxable: int, tax: int
) -> None:
    _, invoice_id = paid(people, 6, 5000)
    with app_with(database.url, PAYMENT_TAX_BASIS="included", DOCUMENTS_ACCREDITED="1", **CLINIC) as app:
        patient = people.seen_by(app).patient
        data = patient.pay(7, amount=amount).json["data"]
        record = patient.get(f"/payments/{data['payment_id']}").json["data"]["tax_records"][0]
        text = read(patient, f"/invoices/{data['invoice']['id']}.pdf")
        older = read(patient, f"/invoices/{invoice_id}.pdf")

    assert (record["tax_basis"], record["taxable_amount"] * 100, record["amount"] * 100) == (
        "included",
        pytest.approx(taxable),
        pytest.approx(tax),
    )
    assert taxable + tax == round(float(amount) * 100)
    assert_has(text, "Without tax", f"₱{taxable / 100:,.2f}", f"₱{tax / 100:,.2f}")
    assert "official receipt" not in text
    assert "Without tax" not in older  # kept as it was when it was made
    assert_has(older, "₱600.00")
    bases = rows.all("SELECT tax_basis FROM tax_records ORDER BY id")
    assert [row["tax_basis"] for row in bases] == ["amount", "included"]


@needs_pdftotext
@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("José Ñáñez-Øster", "José Ñáñez-Øster"),
        ("Željko Đurić", "Željko Đurić"),
        ("Сергей Ωmega", "Сергей Ωmega"),
        ("陳大文 Chan", "□□□ Chan"),
        ("Maria 👩‍⚕️", "Maria □"),  # what joins signs is drawn as a missing one too
        ("a\u202eb\u0000c".replace("\u0000", "\u0007"), "a□b□c"),
        ("%(x)s **bold** <b>", "%(x)s **bold** <b>"),
    ],
)
def test_any_name_can_be_printed_and_what_the_font_lacks_is_seen(
    people: People, rows: Rows, name: str, printed: str
) -> None:
    _, invoice_id = paid(people)
    rows.execute("UPDATE users SET name = :name", name=name)

    assert_has(read(people.patient, f"/invoices/{invoice_id}.pdf"), printed)


@pytest.mark.parametrize("text", ["مريم العلي", "שרה כהן", "x" * 200, "字" * 200, "a " * 100, "", "=1+1\t\r\n-"])
def test_no_text_makes_it_fail(people: People, rows: Rows, text: str) -> None:
    _, invoice_id = paid(people)
    rows.execute("UPDATE users SET name = :text", text=text)
    rows.execute("UPDATE consultations SET description = :text, reference = NULL WHERE id = 5", text=text[:200])

    pdf(people.patient, f"/invoices/{invoice_id}.pdf")


def test_a_pdf_is_made_while_no_transaction_is_open(
    people: People, given_back: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_connections: list[int] = []
    draw, engine = pdf_module.draw, engine_of(people.app)

    def drawn(*arguments: Any) -> bytes:
        open_connections.append(engine.pool.checkedout())  # type: ignore[attr-defined]
        return draw(*arguments)

    monkeypatch.setattr(pdf_module, "draw", drawn)
    pdf(people.patient, f"/invoices/{given_back[1]}.pdf")

    assert open_connections == [0]
