"""Payments as CSV: every row once, whatever is in a cell, readable by Python and by a spreadsheet, in little memory."""

import csv
import gc
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from shutil import which
from typing import Any

import psutil
import pytest
from flask import Flask
from sqlalchemy import Engine

from payments_app.accounts.system_user import system_caller
from payments_app.documents import export
from payments_app.payments.queries import Filter
from tests.api.assertions import assert_problem
from tests.support.apps import app_with, engine_of
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database, unsynced
from tests.support.dialects import on_postgresql
from tests.support.fresh_databases import engine_on, fresh_database
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import refund

ZONE = {"CLINIC_TIMEZONE": "Asia/Manila"}
MANY, MOST = 20_000, 1_000_000
# Of the garbage collector, as Python has it.
PRODUCTION_THRESHOLD = (700, 10, 10)
# Bytes by which a process may grow while it exports, however many payments there are.
MEMORY_BYTES = 16 * 2**20


@pytest.fixture
def commands(database: Database, people: People) -> Iterator[CommandRunner]:  # noqa: ARG001  # on an empty database
    with commands_on(database.url, **ZONE) as commands:
        yield commands


def paid(people: People, consultation: int, **members: Any) -> int:
    payment_id: int = people.patient.pay(consultation, **members).json["data"]["payment_id"]
    assert people.patient.confirm(payment_id, f"TXN-{consultation}").status_code == 200
    return payment_id


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text, newline="")))


def exported(people: People, query: str = "") -> list[dict[str, str]]:
    answer = people.admin.get(f"/payments.csv{query}")
    assert (answer.status_code, answer.content_type) == (200, "text/csv; charset=utf-8")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="payments.csv"'
    return parsed(answer.text)


def test_each_column_says_what_the_payment_says(database: Database, people: People, rows: Rows) -> None:
    people.admin.put("/consultations/5", {"patient_id": people.patient.id, "reference": "BK-77"})
    payment_id = paid(people, 5, amount="5000.50")
    for number, part in enumerate((1250.5, 100)):
        refund(people.admin, payment_id, f"part-{number}", amount=part)
    rows.execute("UPDATE credit_notes SET status = 'void', voided_at = issued_at WHERE number = 2")
    at = datetime(2026, 1, 31, 17, 30, 5, 700, tzinfo=UTC)
    rows.execute("UPDATE payments SET created_at = :at, completed_at = :at", at=rows.moment(at))
    unpaid = people.patient.pay(6).json["data"]
    with app_with(database.url, **ZONE) as app:
        newest, oldest = exported(people.seen_by(app))

    assert oldest == {
        "payment_id": str(payment_id),
        "created_at": "2026-02-01T01:30:05+08:00",
        "completed_at": "2026-02-01T01:30:05+08:00",
        "status": "partially_refunded",
        "patient_name": "patient@example.com",
        "patient_email": "patient@example.com",
        "consultation_id": "5",
        "consultation_reference": "BK-77",
        "payment_method": "stripe",
        "gateway": "sandbox",
        "currency": "PHP",
        "amount": "5000.50",
        "received": "5000.50",
        "refunded": "1350.50",
        "tax": "600.06",
        "invoice_number": rows.one("SELECT invoice_number FROM invoices WHERE payment_id = :id", id=payment_id)[
            "invoice_number"
        ],
        "credit_notes": "CN-000001; CN-000002 (void)",
        "transaction_id": "TXN-5",
    }
    assert (newest["payment_id"], newest["status"], newest["received"]) == (
        str(unpaid["payment_id"]),
        "pending",
        "0.00",
    )
    assert (newest["completed_at"], newest["credit_notes"], newest["transaction_id"]) == ("", "", "")


def test_the_filters_are_those_of_the_list_and_bad_ones_are_named(people: People) -> None:
    for consultation in (5, 6):
        paid(people, consultation)
    people.patient.pay(7)
    for query in ("?status=pending", "?consultation_id=5", "?transaction_id=TXN-6", f"?user_id={people.patient.id}"):
        listed = people.admin.get(f"/payments{query}").json["data"]
        assert [row["payment_id"] for row in exported(people, query)] == [str(each["id"]) for each in listed]
    assert exported(people, "?patient_email=nobody@example.com") == []

    assert_problem(people.admin.get("/payments.csv?per_page=5"), 422, "per_page")
    assert_problem(people.admin.get("/payments.csv?status=paid"), 422, "status")
    assert_problem(people.patient.get("/payments.csv"), 403, code="forbidden")


DANGEROUS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", "\r=1+1", '=HYPERLINK("http://a.example","x")']
STRANGE = ['a "quoted" name', "comma, name", "José 陳大文 مريم", "two\nlines", "'quoted", "007", "1/2", "TRUE"]


def test_no_text_becomes_a_formula_and_every_other_one_stays_as_it_is(people: People, rows: Rows) -> None:
    paid(people, 5)
    for name in [*DANGEROUS, *STRANGE]:
        rows.execute("UPDATE users SET name = :name WHERE id = :id", name=name, id=people.patient.id)
        rows.execute("UPDATE payments SET transaction_id = :name", name=name)

        (row,) = exported(people)

        wanted = f"'{name}" if name in DANGEROUS else name
        assert (row["patient_name"], row["transaction_id"]) == (wanted, wanted)


@pytest.mark.skipif(which("soffice") is None, reason="needs LibreOffice (libreoffice-calc-nogui)")
@on_postgresql
def test_a_spreadsheet_reads_it_back(people: People, rows: Rows, tmp_path: Path) -> None:
    names = [*DANGEROUS, *STRANGE]
    for consultation, name in enumerate(names, start=1):
        payment_id = paid(people, consultation)
        rows.execute("UPDATE payments SET transaction_id = :name WHERE id = :id", name=f"{name}", id=payment_id)
    file = tmp_path / "payments.csv"
    file.write_bytes(people.admin.get("/payments.csv").data)
    # Fields by commas, texts in quotes, UTF-8, from the first line, cells as they would be taken by a person who opens
    # the file; and back with the texts as they are shown.
    subprocess.run(
        [
            *("soffice", f"-env:UserInstallation=file://{tmp_path}/profile", "--headless"),
            *("--infilter=CSV:44,34,76,1", "--convert-to", "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true"),
            *("--outdir", str(tmp_path / "back"), str(file)),
        ],
        check=True,
        capture_output=True,
        timeout=180,
    )

    back = parsed((tmp_path / "back" / "payments.csv").read_text(encoding="utf-8"))

    given = parsed(file.read_text(encoding="utf-8"))
    assert len(back) == len(given) == len(names)
    for ours, theirs in zip(given, back, strict=True):
        assert float(theirs["amount"]) == float(ours["amount"]) == 5000
        for column in ("payment_id", "status", "patient_email", "invoice_number", "created_at"):
            assert theirs[column] == ours[column]
        if ours["transaction_id"] not in ("007", "1/2"):  # which any spreadsheet takes for a number and for a day
            assert theirs["transaction_id"] == ours["transaction_id"]


def test_the_command_writes_the_same_between_two_days_of_the_clinic(
    commands: CommandRunner, people: People, rows: Rows, tmp_path: Path
) -> None:
    ids = [paid(people, consultation) for consultation in (5, 6, 7)]
    # The first second of 1 February in Manila, the last one of the 2nd, and the first one of the 3rd.
    moments = [(1, 31, 16, 0, 0), (2, 2, 15, 59, 59), (2, 2, 16, 0, 0)]
    for payment_id, moment in zip(ids, moments, strict=True):
        at = rows.moment(datetime(2026, *moment, tzinfo=UTC))
        rows.execute("UPDATE payments SET created_at = :at WHERE id = :id", at=at, id=payment_id)
    file = tmp_path / "february.csv"
    days = ("--from", "2026-02-01", "--to", "2026-02-02")

    printed = commands.run("payments", "export", *days)
    commands.ok("payments", "export", *days, "--output", file)
    completed = commands.run("payments", "export", *days, "--by", "completed")

    found = parsed(printed.stdout)
    assert [row["payment_id"] for row in found] == [str(payment_id) for payment_id in reversed(ids[:2])]
    assert [row["created_at"] for row in found] == ["2026-02-02T23:59:59+08:00", "2026-02-01T00:00:00+08:00"]
    assert printed.stderr == "2 payments\n"
    assert parsed(file.read_bytes().decode()) == found
    assert (list(tmp_path.iterdir()), file.stat().st_mode & 0o777) == ([file], 0o600)
    assert parsed(completed.stdout) == []
    assert commands.refused("payments", "export", "--from", "2026-02-02", "--to", "2026-02-01")
    assert commands.refused("payments", "export", "--from", "tomorrow", "--to", "2026-02-01")
    assert "No such file" in commands.refused("payments", "export", *days, "--output", tmp_path / "no" / "file.csv")


def test_no_transaction_is_open_while_bytes_go_out_and_each_payment_comes_once(
    app: Flask, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE_SIZE", 2)
    ids = [people.patient.pay(consultation).json["data"]["payment_id"] for consultation in range(1, 6)]
    response = people.admin.get("/payments.csv", buffered=False)
    texts: list[str] = []
    for piece in response.iter_encoded():
        assert engine_of(app).pool.checkedout() == 0  # type: ignore[attr-defined]
        if len(texts) == 1:  # a payment that is made meanwhile is newer than what is read
            people.patient.pay(6)
        texts.append(piece.decode())

    assert len(texts) == 3
    assert [row["payment_id"] for row in parsed("".join(texts))] == [str(payment_id) for payment_id in reversed(ids)]


PAYMENTS = """
    INSERT INTO payments (id, user_id, consultation_id, amount_minor, currency, payment_method, gateway, status,
        received_minor, refund_reserved_minor, refunded_minor, needs_review, version, created_at, updated_at)
    SELECT n, {patient}, 1 + n % 20, 100000 + n, 'PHP', 'gcash', 'manual', 'expired', 0, 0, 0, false, 0, {at}, {at}
    FROM ({numbers}) AS numbers"""
INVOICES = """
    INSERT INTO invoices (id, payment_id, invoice_number, amount_minor, currency, status, issued_at)
    SELECT id, id, 'INV-' || id, amount_minor, 'PHP', 'void', created_at FROM payments"""
TAX_RECORDS = """
    INSERT INTO tax_records (payment_id, tax_type, tax_rate_basis_points, taxable_amount_minor, amount_minor, status)
    SELECT id, 'VAT', 1200, amount_minor, amount_minor * 12 / 100, 'calculated' FROM payments"""


def fill(engine: Engine, patient_id: int, count: int) -> None:
    """Add payments that have ended unpaid, ten of each second."""
    if engine.dialect.name == "postgresql":
        numbers = f"SELECT value AS n FROM generate_series(1, {count}) AS value"
        at = "timestamptz '2026-01-01' + n / 10 * interval '1 second'"
    else:
        numbers = f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) SELECT n FROM c"
        at = "strftime('%Y-%m-%d %H:%M:%S.000000', '2026-01-01', '+' || (n / 10) || ' seconds')"
    with unsynced(engine) as connection:
        for statement in (PAYMENTS.format(patient=patient_id, at=at, numbers=numbers), INVOICES, TAX_RECORDS):
            connection.execution_options(no_parameters=True).exec_driver_sql(statement)
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")


@pytest.fixture
def collecting_as_in_production() -> Iterator[None]:
    """tests/conftest.py lets the collector run less often: statements of some hundred pages would wait for it."""
    ours = gc.get_threshold()
    gc.set_threshold(*PRODUCTION_THRESHOLD)
    yield
    gc.set_threshold(*ours)


@pytest.mark.usefixtures("collecting_as_in_production")
@pytest.mark.parametrize("dialect", ["postgresql", pytest.param("sqlite", marks=pytest.mark.long)])
def test_however_many_payments_there_are_it_takes_little_memory(dialect: str, *, is_long: bool) -> None:
    """In the short form 20,000, in the long one a million."""
    count = MOST if is_long else MANY
    with fresh_database(dialect) as database, app_with(database.url, **ZONE) as app:
        people = People(app, patient=range(1, 21))
        with engine_on(database.url) as engine:  # without the time limits of the app's
            fill(engine, people.patient.id, count)
        seen, last_id, sizes = 0, count + 1, []
        with app.app_context():
            found = export.pages(Filter(per_page=export.PAGE_SIZE), caller=system_caller())
            for text in export.lines(found, time_zone=app.config["SETTINGS"].clinic_timezone):
                ids = _ids(text, skip=1 if seen == 0 else 0)
                assert ids == list(range(last_id - 1, last_id - 1 - len(ids), -1))
                seen, last_id = seen + len(ids), ids[-1]
                sizes.append(psutil.Process().memory_info().rss)

    assert seen == count
    # After the first pages, which fill caches.
    assert max(sizes) - sizes[5] < MEMORY_BYTES


def _ids(text: str, *, skip: int) -> list[int]:
    return [int(row[0]) for row in list(csv.reader(StringIO(text, newline="")))[skip:]]
