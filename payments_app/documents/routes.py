"""Invoices, credit notes and the export over HTTP."""

from collections.abc import Iterator
from typing import Any

from flask import Response, current_app, stream_with_context

from config import Settings
from payments_app.accounts.auth import authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.api.blueprint import Blueprint
from payments_app.documents import export, repository
from payments_app.payments import queries, schemas

blueprint = Blueprint("documents", __name__, url_prefix="/api/v1", description="Invoices, credit notes and lists")


@blueprint.route("/invoices/<id:invoice_id>.pdf")
@authenticated(Role.PATIENT, Role.ADMIN, Role.PAYER, scope=Scope.PAYMENTS_READ)
@blueprint.without_parameters
@blueprint.file_response("application/pdf", headers=("Content-Disposition", "Vary"))
@blueprint.problems(401, 403, 404, 422, 429, 503)
def show_invoice_pdf(invoice_id: int, caller: Caller) -> Response:
    """An invoice as a PDF, in the reader's language and in the clinic's time zone."""
    paper = repository.get_invoice(invoice_id, caller=caller)
    return _as_pdf(paper, paper.invoice_number)


@blueprint.route("/credit-notes/<id:credit_note_id>.pdf")
@authenticated(Role.PATIENT, Role.ADMIN, Role.PAYER, scope=Scope.PAYMENTS_READ)
@blueprint.without_parameters
@blueprint.file_response("application/pdf", headers=("Content-Disposition", "Vary"))
@blueprint.problems(401, 403, 404, 422, 429, 503)
def show_credit_note_pdf(credit_note_id: int, caller: Caller) -> Response:
    """A credit note as a PDF, in the reader's language and in the clinic's time zone.

    Each refund of a paid invoice has one: its `credit_note_id`. If the refund fails later, the note says that it is
    void.
    """
    paper = repository.get_credit_note(credit_note_id, caller=caller)
    return _as_pdf(paper, paper.note.number if paper.note else "")


@blueprint.route("/payments.csv")
@authenticated(Role.ADMIN, scope=Scope.PAYMENTS_READ)
@blueprint.arguments(schemas.PaymentExportQuery, location="query")
@blueprint.file_response("text/csv", headers=("Content-Disposition",))
@blueprint.problems(401, 403, 422, 429, 503)
def export_payments(query: dict[str, Any], caller: Caller) -> Response:
    """All payments that fulfil the conditions, newest first, as CSV: UTF-8, a row of names, commas, CRLF.

    Amounts are in major units, times in the clinic's time zone. A text that a spreadsheet would take for a formula
    begins with an apostrophe. If the response breaks off, it is not complete: HTTP says so.
    """
    conditions = {name: value for name, value in query.items() if name != "user_id"}
    filters = queries.Filter(**conditions, patient_id=query.get("user_id"), per_page=export.PAGE_SIZE)
    pages = export.pages(filters, caller=caller)
    lines = export.lines(pages, time_zone=_settings().clinic_timezone)
    # The first page is read before the response begins: until then an error is a problem with its own status.
    first = next(lines)
    response = Response(stream_with_context(_after(first, lines)), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="payments.csv"'
    return response


def _after(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others


def _as_pdf(paper: repository.Paper, name: str) -> Response:
    # Imported here: it takes 0.2 s and 20 MiB, which commands and most workers never need.
    from payments_app.documents import pdf  # noqa: PLC0415

    settings = _settings()
    letterhead = pdf.Letterhead(
        name=settings.clinic_name,
        address=settings.clinic_address,
        tax_number=settings.clinic_tax_number,
        time_zone=settings.clinic_timezone,
        is_accredited=settings.documents_accredited,
    )
    response = Response(pdf.draw(paper, letterhead), mimetype="application/pdf")
    response.headers["Content-Disposition"] = f'inline; filename="{name}.pdf"'
    response.vary.add("Accept-Language")
    return response


def _settings() -> Settings:
    settings: Settings = current_app.config["SETTINGS"]
    return settings
