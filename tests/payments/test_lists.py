"""Histories: newest first, by pages that cost the same at any depth."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from psycopg import RawCursor
from sqlalchemy import Engine, text

from payments_app.payments import queries
from payments_app.payments.models.status import PaymentStatus
from tests.support.people import People, Person
from tests.support.rows import Rows
from tests.support.statements import statements_sent


def walk(person: Person, path: str) -> list[int]:
    """All ids, following the Link headers."""
    seen: list[int] = []
    while True:
        answer = person.get(path)
        assert answer.status_code == 200
        seen += [payment["id"] for payment in answer.json["data"]]
        link = answer.headers.get("Link")
        if link is None:
            assert answer.json["meta"]["next_cursor"] is None
            return seen
        target, relation = link.split("; ")
        assert relation == 'rel="next"'
        assert parse_qs(urlparse(target.strip("<>")).query)["cursor"] == [answer.json["meta"]["next_cursor"]]
        path = target.strip("<>").removeprefix("/api/v1")


def test_a_history_is_newest_first_by_fifteen(people: People) -> None:
    made = [people.patient.pay(consultation).json["data"]["payment_id"] for consultation in range(1, 18)]
    people.other.pay(21)

    first = people.patient.get("/payments")

    assert [payment["id"] for payment in first.json["data"]] == made[:1:-1]
    assert first.json["meta"]["per_page"] == 15
    assert walk(people.patient, "/payments") == made[::-1]
    assert walk(people.patient, "/payments?per_page=4") == made[::-1]


def test_payments_of_one_moment_are_neither_lost_nor_repeated(people: People, rows: Rows) -> None:
    made = [people.patient.pay(consultation).json["data"]["payment_id"] for consultation in range(1, 11)]
    moment = rows.one("SELECT min(created_at) AS at FROM payments")["at"]
    rows.execute("UPDATE payments SET created_at = :at", at=moment)

    assert walk(people.patient, "/payments?per_page=3") == sorted(made, reverse=True)


def test_an_admin_sees_everybodys(people: People) -> None:
    mine = people.patient.pay(1).json["data"]["payment_id"]
    others = people.other.pay(21).json["data"]["payment_id"]

    assert walk(people.admin, "/payments") == [others, mine]
    assert walk(people.other, "/payments") == [others]


def test_filters_by_status_and_consultation(people: People) -> None:
    cancelled = people.patient.pay(1).json["data"]["payment_id"]
    people.patient.post(f"/payments/{cancelled}/cancel")
    again = people.patient.pay(1).json["data"]["payment_id"]
    elsewhere = people.patient.pay(2).json["data"]["payment_id"]

    assert walk(people.patient, "/payments?status=cancelled") == [cancelled]
    assert walk(people.patient, "/payments?status=pending&per_page=1") == [elsewhere, again]
    assert walk(people.patient, "/payments?consultation_id=1") == [again, cancelled]
    assert walk(people.patient, "/payments?consultation_id=1&status=pending") == [again]


@pytest.mark.parametrize("who", ["patient", "admin"])
def test_a_deep_page_is_read_from_its_index_alone(people: People, engine: Engine, who: str) -> None:
    """The plan of a page in the middle of 20,000 payments: one index range, no sort, no scan of what came before."""
    load_payments(engine, people, 20_000)
    person: Person = getattr(people, who)
    cursor = person.get("/payments?per_page=100").json["meta"]["next_cursor"]
    for _ in range(2):
        cursor = person.get(f"/payments?per_page=100&cursor={cursor}").json["meta"]["next_cursor"]

    plan = plan_of_last_select(engine, lambda: person.get(f"/payments?per_page=15&cursor={cursor}"))

    index = "ix_payments_user_history" if who == "patient" else "ix_payments_history"
    assert index in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan
    if engine.dialect.name == "postgresql":
        assert "Rows Removed by Filter" not in plan
        assert "rows=16.00" in plan
        assert "Index Cond" in plan


def load_payments(engine: Engine, people: People, count: int) -> None:
    """Cancelled payments a second apart, every fiftieth of them the patient's."""
    later = (
        "datetime('2025-01-01', '+' || n || ' seconds') || '.000000'"
        if engine.dialect.name == "sqlite"
        else "timestamptz '2025-01-01' + n * interval '1 second'"
    )
    columns = (
        "id, user_id, consultation_id, amount_minor, currency, payment_method, gateway, status, received_minor,"
        " refund_reserved_minor, refunded_minor, needs_review, version, created_at, updated_at"
    )
    with engine.begin() as connection:
        connection.execute(
            text(
                "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)"
                f" INSERT INTO payments ({columns})"
                " SELECT 1000000 + n, CASE WHEN n % 50 = 0 THEN :patient ELSE :other END,"
                " CASE WHEN n % 50 = 0 THEN 5 ELSE 21 END, 500000, 'PHP', 'stripe', 'sandbox',"
                f" 'cancelled', 0, 0, 0, false, 1, {later}, {later} FROM numbers"
            ),
            {"count": count, "patient": people.patient.id, "other": people.other.id},
        )
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE payments"))


def plan_of_last_select(engine: Engine, ask: Callable[[], object]) -> str:
    """What the database really does for the last statement that a request sends."""
    with statements_sent(engine) as sent:
        ask()
    statement, parameters = sent[-1]
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN (ANALYZE)"
    with engine.connect() as connection:
        if "$1" in statement:  # in PostgreSQL's own words
            driver: Any = connection.connection.driver_connection
            cursor = RawCursor(driver)
            return "\n".join(str(row) for row in cursor.execute(f"{explain} {statement}".encode(), parameters))
        return "\n".join(str(row) for row in connection.exec_driver_sql(f"{explain} {statement}", parameters))


def test_a_client_that_asks_for_every_page_there_is_does_not_fill_the_memory(people: People) -> None:
    """A statement is kept for each page size and filter: of those that were asked for lately."""
    for status in (None, PaymentStatus.PENDING, PaymentStatus.COMPLETED):
        for per_page in range(1, 101):
            queries._page(frozenset({"user_id"}), status, per_page)

    assert queries._page.cache_info().currsize == queries.CACHED_STATEMENTS
    assert people.patient.get("/payments?per_page=1").status_code == 200  # long forgotten
