"""A page costs what a page costs: rows read do not grow with what lies before it, whoever asks and however filtered."""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl

import psycopg
import pytest
from flask import Flask
from sqlalchemy import Engine, text

from payments_app import clock
from payments_app.accounts.models import Role
from payments_app.api.cursors import sign_position, with_filters
from payments_app.payments import review
from tests.support.apps import app_with, engine_of
from tests.support.fresh_databases import fresh_database
from tests.support.people import People, Person
from tests.support.statements import statements_sent

PAYMENTS = 40_000
PAGE = 15

# From the sixth on PostgreSQL may keep one plan for all values; what it then does is what a busy worker sees.
EXECUTIONS = 8

# Of so many payments one is refunded: for each row that is shown a filter passes over so many at most.
TURN = 4
# Of so many payments one is the patient's.
PATIENT_HAS = 50
ONE_CONSULTATION = 5

# Before the last, so that there is a full page behind it.
DEEP = PAYMENTS - 6_000


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[Flask, People]]:
    """The patient's payments are all for one consultation; the others', for another."""
    with fresh_database("postgresql") as database, app_with(database.url) as app:
        people = People(app)
        people.add_consultations("patient", ONE_CONSULTATION, ONE_CONSULTATION)
        people.add_consultations("other", 21, 21)
        with app.app_context():
            load(app.extensions["sqlalchemy"].engine, people)
        yield app, people


def load(engine: Engine, people: People) -> None:
    columns = (
        "id, user_id, consultation_id, amount_minor, currency, payment_method, gateway, status, transaction_id,"
        " received_minor, refund_reserved_minor, refunded_minor, needs_review, version, created_at, updated_at,"
        " completed_at"
    )
    refunded = f"(n + n / {PATIENT_HAS}) % {TURN} = 0"  # of the patient's as of the others'
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO payments ({columns}) SELECT 1000000 + n,"
                f" CASE WHEN n % {PATIENT_HAS} = 0 THEN :patient ELSE :other END,"
                f" CASE WHEN n % {PATIENT_HAS} = 0 THEN {ONE_CONSULTATION} ELSE 21 END,"
                " 500000, 'PHP', 'stripe', 'sandbox',"
                f" CASE WHEN {refunded} THEN 'refunded' ELSE 'cancelled' END,"
                f" CASE WHEN {refunded} THEN 'TXN-' || n END, CASE WHEN {refunded} THEN 500000 ELSE 0 END, 0,"
                f" CASE WHEN {refunded} THEN 500000 ELSE 0 END, n % 5000 = 0, 1, at, at,"
                f" CASE WHEN {refunded} THEN at END"
                f" FROM generate_series(1, {PAYMENTS}) n,"
                " LATERAL (SELECT timestamptz '2025-01-01' + n * interval '1 second') AS t (at)"
            ),
            {"patient": people.patient.id, "other": people.other.id},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE payments"))


@pytest.mark.parametrize("depth", [0, DEEP])
@pytest.mark.parametrize(
    ("who", "filters", "passed_over"),
    [
        ("patient", "", 0),
        ("admin", "", 0),
        ("admin", f"consultation_id={ONE_CONSULTATION}", 0),
        ("admin", "status=cancelled", TURN),
        ("admin", "status=refunded", TURN),
        ("patient", "status=cancelled", TURN),
        ("patient", "status=refunded", TURN),
    ],
)
def test_a_page_reads_no_more_rows_than_it_shows(
    loaded: tuple[Flask, People], who: str, filters: str, passed_over: int, depth: int
) -> None:
    """Page 1 and a page behind most of all, each in one walk along an index without sorting.

    A patient who filters by consultation reads no more than that consultation has: a handful, which may be sorted.
    """
    app, people = loaded
    person = getattr(people, who)
    cursor = f"&cursor={cursor_behind(app, depth, filters)}" if depth else ""
    with app.app_context():
        engine = app.extensions["sqlalchemy"].engine
        with statements_sent(engine) as sent:
            answer = person.get(f"/payments?per_page={PAGE}&{filters}{cursor}")
    assert len(answer.json["data"]) == PAGE

    plan = kept_plan(engine, *sent[-1])

    nodes = list(all_nodes(plan))
    assert {node["Node Type"] for node in nodes} == {"Limit", "Index Scan"}
    assert sum(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in nodes[1:]) <= (PAGE + 1) * (
        1 + passed_over
    )
    assert plan["Actual Rows"] == PAGE + 1


DAY, NEXT_DAY = "2025-01-01T06:00:00Z", "2025-01-01T06:10:00Z"
# Payments in that time, and those of them that were completed.
IN_TIME, COMPLETED_IN_TIME = 600, 600 // TURN


@pytest.mark.parametrize(
    ("who", "filters", "reads"),
    [
        # In one walk along an index, from newest to oldest: a page's worth.
        ("admin", f"created_from={DAY}&created_to={NEXT_DAY}", PAGE + 1),
        ("admin", f"created_to={NEXT_DAY}", PAGE + 1),
        ("patient", f"created_from={DAY}&created_to={NEXT_DAY}", PAGE + 1),
        ("admin", "payment_method=stripe", PAGE + 1),
        ("admin", "payment_method=gcash", 0),
        ("admin", "needs_review=false", PAGE + 2),
        ("admin", "patient_email=patient@example.com", PAGE + 1),
        ("admin", f"completed_from={DAY}", (PAGE + 1) * (TURN + 1)),
        # All that the filter leaves, which are sorted.
        ("admin", "needs_review=true", PAYMENTS // 5000),
        ("admin", "transaction_id=TXN-4", 1),
        ("admin", f"completed_from={DAY}&completed_to={NEXT_DAY}", COMPLETED_IN_TIME + 1),
    ],
)
def test_a_filter_is_found_by_an_index(loaded: tuple[Flask, People], who: str, filters: str, reads: int) -> None:
    app, people = loaded

    rows, sent = rows_read(app, getattr(people, who), f"/payments?per_page={PAGE}&{filters}")

    assert rows <= reads, sent


@pytest.mark.parametrize("depth", [0, DEEP])
@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ("", PAGE + 1),
        ("status=cancelled", (PAGE + 1) * TURN),
    ],
)
def test_the_front_desk_reads_what_it_finds_and_each_of_it_once_more(
    loaded: tuple[Flask, People], filters: str, found: int, depth: int
) -> None:
    app, people = loaded
    cursor = f"&cursor={cursor_behind(app, depth, filters, kind='desk')}" if depth else ""

    rows, sent = rows_read(app, people.admin, f"/desk/payments?per_page={PAGE}&{filters}{cursor}")

    assert rows <= found + PAGE + 1, sent


@pytest.mark.parametrize("has_many", [False, True])
def test_a_booking_system_with_few_or_many_consultations_reads_a_page(
    loaded: tuple[Flask, People], has_many: bool
) -> None:
    """Planned by who asks: along its consultations, or along the history."""
    app, people = loaded
    engine = engine_of(app)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE consultations SET registered_by = CASE WHEN id = :theirs THEN :booking ELSE :admin END"),
            {
                "theirs": 21 if has_many else ONE_CONSULTATION,
                "booking": people.booking.id,
                "admin": people.admin.id,
            },
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE consultations"))

    rows, sent = rows_read(app, people.booking, f"/payments?per_page={PAGE}")

    # Of few consultations all payments, or as many of the history: one in PATIENT_HAS is theirs.
    assert rows <= (PAGE + 2 if has_many else (PAGE + 1) * PATIENT_HAS), sent


def rows_read(app: Flask, person: Person, path: str) -> tuple[int, Any]:
    """How many payments the last statement of a request takes from the table, those included that it then drops."""
    with app.app_context():
        engine = app.extensions["sqlalchemy"].engine
        with statements_sent(engine) as sent:
            assert person.get(path).status_code == 200
    plan = kept_plan(engine, *sent[-1], executions=0)  # planned by its values, each time
    nodes = [node for node in all_nodes(plan) if node.get("Relation Name") == "payments"]
    assert {node["Node Type"] for node in nodes} <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, nodes
    rows = sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in nodes)
    return int(rows), sent[-1]


def test_counting_the_payments_in_review_reads_those_alone(loaded: tuple[Flask, People]) -> None:
    app, _ = loaded
    with app.app_context():
        engine = app.extensions["sqlalchemy"].engine
        with statements_sent(engine) as sent:
            assert review.count() == PAYMENTS // 5000

    nodes = list(all_nodes(kept_plan(engine, *sent[-1])))

    assert {node.get("Index Name") for node in nodes[1:]} == {"ix_payments_review"}
    assert nodes[-1]["Actual Rows"] == PAYMENTS // 5000


def test_a_create_looks_for_its_key_alone() -> None:
    """And not through all keys whose answers are kept still, which an index of its own has together."""
    with fresh_database("postgresql") as database, app_with(database.url) as app:
        people = People(app)
        people.add_consultations(Role.PATIENT, 1, 2)
        engine = engine_of(app)
        people.patient.pay(1)  # takes ids
        with statements_sent(engine) as sent:
            assert people.patient.pay(2).status_code == 201
        plan = kept_plan(engine, *sent[-1])  # the first time it is a replay, as every time after

    assert "ix_idempotency_keys_whole" not in {node.get("Index Name") for node in all_nodes(plan)}


def test_sqlite_too_counts_the_payments_in_review_by_their_index() -> None:
    with fresh_database("sqlite") as database, app_with(database.url) as app, app.app_context():
        engine = app.extensions["sqlalchemy"].engine
        with statements_sent(engine) as sent:
            assert review.count() == 0
        with engine.connect() as connection:
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sent[-1][0]}").all())
    assert "ix_payments_review" in plan


def cursor_behind(app: Flask, depth: int, filters: str, *, kind: str = "payments") -> str:
    """Where the page begins that has so many payments before it, as the service would say on the page before."""
    query = text("SELECT created_at, id FROM payments ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET :depth")
    with app.app_context(), app.extensions["sqlalchemy"].engine.connect() as connection:
        row = connection.execute(query, {"depth": depth - 1}).one()
        filtered = with_filters(kind, dict(parse_qsl(filters)))
        return sign_position(filtered, [clock.to_text(row.created_at), row.id])


def kept_plan(
    engine: Engine, statement: str, parameters: dict[str, Any] | Sequence[Any], executions: int = EXECUTIONS
) -> dict[str, Any]:
    """What the database does for a statement that a connection has prepared, and has sent before."""
    prepared, given = statement, list(parameters)
    if isinstance(parameters, dict):  # SQLAlchemy's; what goes alone is in PostgreSQL's own words
        names, given = given, list(parameters.values())
        prepared = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)
    values = f"({', '.join(['%s'] * len(given))})" if given else ""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.ClientCursor(psycopg.connect(url, autocommit=True)) as cursor:
        cursor.execute(f"PREPARE asked AS {prepared}".encode())
        for _ in range(executions):
            cursor.execute(f"EXECUTE asked {values}".encode(), given)
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked {values}".encode(), given)
        explained = cursor.fetchone()
        cursor.connection.close()
    assert explained is not None
    return explained[0][0]["Plan"]  # type: ignore[no-any-return]


def all_nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The steps of a plan, from the last one to the first."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from all_nodes(below)
