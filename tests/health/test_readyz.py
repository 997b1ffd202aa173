"""``/healthz``, ``/readyz``, and the readiness check without which no payment is created."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy.exc import IntegrityError

from payments_app import readiness
from payments_app.accounts.models import Role
from tests.health.conftest import Alter, read_only
from tests.support.apps import app_with, engine_of
from tests.support.client import ApiResponse, client_of
from tests.support.databases import Database
from tests.support.fresh_databases import engine_on
from tests.support.guards import (
    ADD_CHECK,
    CHECK,
    CREATE_INDEX,
    DROP_CHECK,
    DROP_INDEX,
    INDEX,
    INVARIANT,
    PREDICATE,
    SPOILT_CHECKS,
    SPOILT_INDEXES,
    STATUSES,
)
from tests.support.people import People
from tests.support.raw_rows import Raw
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows
from tests.support.statements import statements_sent

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:9/nothing"


@contextmanager
def people_at(database: Database) -> Iterator[tuple[People, Rows]]:
    """The people as clients of an app whose readiness check has not run yet; and its rows."""
    with app_with(database.url) as app, engine_on(database.url) as engine:
        people = People(app)
        people.add_consultations(Role.PATIENT, 1, 9)
        yield people, Rows(engine)


def readyz(app: Flask) -> ApiResponse:
    return client_of(app).get("/readyz")


def assert_not_ready(answer: ApiResponse, failed: str) -> None:
    assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
    assert answer.json["type"] == "/problems/not-ready"
    assert (answer.json["retryable"], answer.json["data"]) == (True, {"failed": [failed]})
    assert int(answer.headers["Retry-After"]) > 0
    for secret in ("select", "insert", "create", "psycopg", "sqlite", "uq_payments", "127.0.0.1"):
        assert secret not in answer.text.lower()


def assert_closed(people: People, rows: Rows, failed: str) -> None:
    """Not ready, and no payment is taken."""
    assert_not_ready(readyz(people.app), failed)
    assert_not_ready(people.patient.pay(1), failed)
    assert rows.count("payments") == 0


def assert_open(people: People, rows: Rows) -> None:
    """Ready, and payments are taken: of one consultation one."""
    assert readyz(people.app).status_code == 200
    assert [people.patient.pay(1).status_code for _ in range(2)] == [201, 409]
    assert rows.count("payments") == 1


def test_alive_asks_nobody() -> None:
    with app_with(NOWHERE, REDIS_URL="redis://127.0.0.1:9/0") as app:
        answer = client_of(app).get("/healthz")

    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_ready_where_everything_is_in_place(app: Flask, database: Database, redis_server: RedisServer) -> None:
    checked = ("database", "session", "privileges", "migrations", "index", "checks")
    parts = dict.fromkeys(checked, "ok")
    with app_with(database.url, **redis_server.settings) as with_redis:
        assert readyz(with_redis).json == {"status": "ok", "parts": {**parts, "redis": "ok"}}
    without = readyz(app)

    assert (without.status_code, without.json) == (200, {"status": "degraded", "parts": {**parts, "redis": "degraded"}})


def test_a_redis_that_is_away_is_degraded_not_down(people: People, database: Database) -> None:
    with app_with(database.url, REDIS_URL="redis://127.0.0.1:9/0") as app:
        answer = readyz(app)
        assert (answer.status_code, answer.json["parts"]["redis"]) == (200, "degraded")
        assert people.seen_by(app).patient.pay().status_code == 201


def test_a_database_that_cannot_be_reached_is_not_ready(people: People) -> None:
    with app_with(NOWHERE) as app:
        assert_not_ready(readyz(app), "database")
        assert_not_ready(people.seen_by(app).patient.pay(), "database")


def test_a_database_that_takes_nothing_in_is_not_ready_until_it_does(postgresql: Database, alter: Alter) -> None:
    with people_at(postgresql) as (people, rows):
        read_only(alter, postgresql, "on")
        engine_of(people.app).dispose()

        assert_closed(people, rows, "database")

        read_only(alter, postgresql, "off")
        assert_open(people, rows)


def test_what_is_wrong_is_logged_once_in_the_drivers_words(caplog: pytest.LogCaptureFixture) -> None:
    with app_with(f"{NOWHERE}?nonsense=1") as app:
        for _ in range(3):
            assert readyz(app).status_code == 503

    (told,) = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert told.exc_info is None
    assert 'invalid connection option "nonsense"' in told.getMessage()


@pytest.mark.parametrize("at", ["UPDATE alembic_version SET version_num = '0001'", "DELETE FROM alembic_version"])
def test_a_database_without_the_newest_migration_is_not_ready(own_database: Database, alter: Alter, at: str) -> None:
    with people_at(own_database) as (people, rows):
        alter(own_database, at)

        assert_closed(people, rows, "migrations")


def test_a_database_that_a_newer_release_has_migrated_is_ready(own_database: Database, alter: Alter) -> None:
    with people_at(own_database) as (people, rows):
        alter(own_database, "UPDATE alembic_version SET version_num = 'of_tomorrow'")

        assert_open(people, rows)


@pytest.mark.parametrize("spoilt", SPOILT_INDEXES)
def test_without_the_index_as_it_should_be_payments_are_refused_until_it_is(
    own_database: Database, alter: Alter, spoilt: str
) -> None:
    instead = SPOILT_INDEXES[spoilt]
    with people_at(own_database) as (people, rows):
        alter(own_database, DROP_INDEX, *([instead] if instead else []))

        assert_closed(people, rows, "index")

        alter(own_database, f"DROP INDEX IF EXISTS {INDEX}", CREATE_INDEX)
        assert_open(people, rows)


def test_an_index_that_was_never_built_to_its_end_is_none(postgresql: Database, alter: Alter) -> None:
    with people_at(postgresql) as (people, rows), engine_on(postgresql.url) as engine:
        alter(postgresql, DROP_INDEX)
        raw = Raw(engine)
        for _ in range(2):
            raw.payment(people.patient.id, 1)
        with pytest.raises(IntegrityError):
            alter(postgresql, CREATE_INDEX.replace("INDEX", "INDEX CONCURRENTLY"))
        assert rows.count("pg_index", "NOT indisvalid") == 1

        assert_not_ready(readyz(people.app), "index")
        assert_not_ready(people.patient.pay(2), "index")
        assert rows.count("payments") == 2


@pytest.mark.parametrize("spoilt", SPOILT_CHECKS)
def test_without_the_checks_as_they_should_be_payments_are_refused_until_they_are(
    postgresql: Database, alter: Alter, spoilt: str
) -> None:
    instead = SPOILT_CHECKS[spoilt]
    with people_at(postgresql) as (people, rows):
        alter(postgresql, DROP_CHECK, *([instead] if instead else []))

        assert_closed(people, rows, "checks")

        alter(postgresql, f"ALTER TABLE payments DROP CONSTRAINT IF EXISTS {CHECK}", ADD_CHECK)
        assert_open(people, rows)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (INVARIANT, "1"),
        (INVARIANT, INVARIANT.replace("+ refunded_minor <= received_minor", "+ (refunded_minor <= received_minor)")),
        (f"CONSTRAINT {CHECK} CHECK ({INVARIANT})", f"CHECK (1) /* , CONSTRAINT {CHECK} CHECK ({INVARIANT}), */"),
        (f"CONSTRAINT {CHECK} CHECK ({INVARIANT})", f"CHECK (1) -- , CONSTRAINT {CHECK} CHECK ({INVARIANT}),\n"),
        (f"CONSTRAINT {CHECK} CHECK ({INVARIANT})", f"CHECK ('' <> ', CONSTRAINT {CHECK} CHECK ({INVARIANT}),')"),
    ],
    ids=["always-true", "of-a-truth", "in-a-comment", "in-a-comment-of-a-line", "in-a-text"],
)
def test_a_check_that_was_rewritten_in_sqlite_is_seen(alter: Alter, sqlite: Database, before: str, after: str) -> None:
    with people_at(sqlite) as (people, rows):
        old, new = (sql.replace("'", "''") for sql in (before, after))
        rewrite = f"UPDATE sqlite_master SET sql = replace(sql, '{old}', '{new}') WHERE name = 'payments'"
        alter(sqlite, "PRAGMA writable_schema = ON", rewrite)

        assert_closed(people, rows, "checks")


@pytest.mark.parametrize(
    "again",
    [
        [f"REINDEX INDEX {INDEX}"],
        [f"REINDEX INDEX CONCURRENTLY {INDEX}"],
        [DROP_INDEX, CREATE_INDEX.replace("INDEX", "INDEX CONCURRENTLY")],
        [DROP_INDEX, CREATE_INDEX.replace(STATUSES, ", ".join(reversed(STATUSES.split(", "))))],
        [DROP_INDEX, CREATE_INDEX.replace(f"IN ({STATUSES})", f"= ANY (ARRAY[{STATUSES}]::text[])")],
        [DROP_INDEX, CREATE_INDEX.replace(PREDICATE, f"deleted_at IS NULL AND status IN ({STATUSES})")],
        [DROP_INDEX, CREATE_INDEX.replace("WHERE", "INCLUDE (user_id) WHERE")],
    ],
    ids=["reindexed", "reindexed-online", "made-online", "other-order", "array", "turned-round", "with-more"],
)
def test_an_operator_may_make_the_index_anew(postgresql: Database, alter: Alter, again: list[str]) -> None:
    with people_at(postgresql) as (people, rows):
        alter(postgresql, *again)

        assert_open(people, rows)


def test_in_sqlite_too_in_small_letters_and_on_other_lines(sqlite: Database, alter: Alter) -> None:
    with people_at(sqlite) as (people, rows):
        alter(sqlite, DROP_INDEX, CREATE_INDEX.lower().replace(" where ", "\n  where\t").replace(" and ", "\nand "))

        assert_open(people, rows)


def test_in_sqlite_the_insert_does_not_find_an_index_with_the_statuses_in_another_order(
    sqlite: Database, alter: Alter
) -> None:
    turned = ", ".join(reversed(STATUSES.split(", ")))
    with people_at(sqlite) as (people, rows):
        alter(sqlite, DROP_INDEX, CREATE_INDEX.replace(STATUSES, turned))

        assert_closed(people, rows, "index")


def test_what_is_lost_while_serving_stops_payments_within_the_promised_time(
    postgresql: Database, alter: Alter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with people_at(postgresql) as (people, rows):
        assert people.patient.pay(1).status_code == 201
        alter(postgresql, DROP_CHECK)
        assert people.patient.pay(2).status_code == 201  # the verdict before stands for a while

        monkeypatch.setattr(readiness, "REFRESH_AFTER_SECONDS", 0)  # the while is over

        assert_not_ready(people.patient.pay(3), "checks")
        assert rows.count("payments") == 2


def test_an_insert_that_misses_the_index_is_believed_before_the_next_look(own_database: Database, alter: Alter) -> None:
    with people_at(own_database) as (people, rows):
        assert readyz(people.app).status_code == 200
        alter(own_database, DROP_INDEX)

        assert people.patient.pay(1).status_code == 503

        assert_closed(people, rows, "index")


def test_a_service_that_refuses_payments_serves_the_rest(own_database: Database, alter: Alter) -> None:
    with people_at(own_database) as (people, _rows):
        payment_id = people.patient.pay(1, key="k").json["data"]["payment_id"]
        alter(own_database, DROP_INDEX)
        assert people.patient.pay(2).status_code == 503

        assert people.patient.get("/idempotency-keys/k").status_code == 200
        assert people.patient.confirm(payment_id).status_code == 200
        assert people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000}).status_code == 200


def test_a_stranger_is_told_nothing_of_it(own_database: Database, alter: Alter) -> None:
    with people_at(own_database) as (people, _rows):
        alter(own_database, DROP_INDEX)

        assert people.anonymous().post("/api/v1/payments", json={}).status_code == 401


def test_a_payment_asks_nothing_of_the_catalogue_while_the_verdict_stands(people: People) -> None:
    people.patient.pay(1)
    with statements_sent(engine_of(people.app)) as sent:
        assert people.patient.pay(2).status_code == 201

    for statement, _ in sent:
        assert not any(name in statement for name in ("pg_index", "pg_constraint", "sqlite_master", "alembic_version"))
    assert sent


def test_a_question_that_the_database_does_not_answer_counts_as_a_no(postgresql: Database, alter: Alter) -> None:
    with people_at(postgresql) as (people, rows):
        alter(
            postgresql,
            "DROP TABLE alembic_version",
            "CREATE VIEW alembic_version AS SELECT (1 / (random() * 0)::int)::text AS version_num",
        )

        assert_closed(people, rows, "migrations")
