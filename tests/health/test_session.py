"""What a server, a database or a role may set for its clients: it does not reach our statements, or else it is said."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy import make_url, text

from payments_app.accounts.models import Role
from payments_app.db.engine import current_engines
from payments_app.health import schema_checks
from tests.health.conftest import Alter
from tests.support.apps import app_with, engine_of
from tests.support.client import client_of
from tests.support.cluster import Cluster, cluster_in_a_folder
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.fresh_databases import engine_on, fresh_database
from tests.support.people import PASSWORD, People
from tests.support.pgbouncer import BEHIND_PGBOUNCER, PgBouncer, pgbouncer_before
from tests.support.waiting import wait_until

# Of each setting that the service asks for: what somebody may have set instead, and what a connection of ours has.
ASKED_FOR = {
    "DateStyle": ("German", "ISO, MDY"),
    "IntervalStyle": ("sql_standard", "postgres"),
    "TimeZone": ("Asia/Manila", "UTC"),
    "array_nulls": ("off", "on"),
    "client_encoding": ("LATIN1", "UTF8"),
    "default_transaction_isolation": ("serializable", "read committed"),
    "exit_on_error": ("on", "off"),
    "idle_in_transaction_session_timeout": ("20s", "10s"),
    "idle_session_timeout": ("20s", "0"),
    "lock_timeout": ("0", "500ms"),
    "quote_all_identifiers": ("on", "off"),
    "row_security": ("on", "off"),
    "standard_conforming_strings": ("off", "on"),
    "statement_timeout": ("0", "5s"),
    "synchronous_commit": ("off", "on"),
    "transform_null_equals": ("on", "off"),
}

# What a transaction behind a pooler does not ask for itself: the pooler keeps the encoding of each client and its own
# idle connections.
NOT_OF_A_TRANSACTION = {"client_encoding", "idle_session_timeout"}

# What the service cannot ask for, pooler or none, and what is said of it.
SEEN = {
    "session_replication_role = replica": "session_replication_role is replica, not local or origin",
    "zero_damaged_pages = on": "zero_damaged_pages is on, not off",
    "ignore_checksum_failure = on": "ignore_checksum_failure is on, not off",
    "search_path = public, pg_catalog": "search_path has public before pg_catalog",
    "search_path = elsewhere": "search_path does not lead to our tables, which are in public",
    "search_path = other, public": "search_path finds our tables in several schemas: other, public",
}

# What is left to whoever runs the database, and why none of it changes what a statement means or returns.
LEFT_BY_CATEGORY = {
    "Query Tuning": "how it is planned",
    "Reporting and Logging": "what the server writes down",
    "Resource Usage": "too little of something is an error that says so",
    "Vacuuming": "when room is made",
    "Statistics": "what is counted",
    "Developer Options": "for those who look for faults in PostgreSQL; the two that hide damage are looked at",
    "Replication": "not of a client",
    "Connections and Authentication": "how one gets in, and when a connection that is lost is noticed",
    "Client Connection Defaults / Shared Library Preloading": "what is loaded has settings of its own",
}
LEFT_BY_NAME = {
    "backslash_quote": "texts are sent as parameters",
    "bytea_output": "no column is of bytes, and the driver reads both",
    "check_function_bodies": "no functions are made",
    "client_min_messages": "notices are not read",
    "commit_delay": "how long a commit waits for others",
    "commit_siblings": "the same",
    "createrole_self_grant": "no roles are made",
    "deadlock_timeout": "the lock timeout ends it before, or it is a race that is run again",
    "default_table_access_method": "of tables yet to be made, for whoever runs migrations",
    "default_tablespace": "the same",
    "default_text_search_config": "no text is searched",
    "default_toast_compression": "how it is stored",
    "default_transaction_deferrable": "only of serializable transactions",
    "default_transaction_read_only": "the check of the database says so",
    "dynamic_library_path": "where a superuser has libraries loaded from",
    "escape_string_warning": "a warning",
    "event_triggers": "of tables that are made and altered",
    "extension_control_path": "where a superuser has extensions made from",
    "extra_float_digits": "no column is a float",
    "file_copy_method": "of databases that are copied",
    "gin_fuzzy_search_limit": "no index is of that kind",
    "gin_pending_list_limit": "the same",
    "icu_validation_level": "no collations are made",
    "lc_messages": "errors are judged by their SQLSTATE",
    "lc_monetary": "no column is of type money",
    "lc_numeric": "no number is formatted by the database",
    "lc_time": "no date is",
    "lo_compat_privileges": "there are no large objects",
    "restrict_nonsystem_relation_kind": "there are no views and foreign tables",
    "synchronize_seqscans": "what has an order says so",
    "temp_tablespaces": "where what does not fit into memory goes",
    "timezone_abbreviations": "moments are sent with their distance from UTC",
    "transaction_deferrable": "of the one transaction that is open",
    "transaction_isolation": "the same",
    "transaction_read_only": "the same",
    "wal_compression": "how it is stored",
    "wal_init_zero": "the same",
    "wal_recycle": "the same",
    "wal_skip_threshold": "of tables that are made",
    "xmlbinary": "there is no XML",
    "xmloption": "the same",
}


@contextmanager
def app_on(database: Database, **settings: str) -> Iterator[tuple[Flask, People]]:
    with app_with(database.url, **settings) as app:
        people = People(app)
        people.add_consultations(Role.PATIENT, 1, 9)
        yield app, people


@pytest.fixture(params=["DATABASE {name}", "ROLE CURRENT_USER IN DATABASE {name}"], ids=["database", "role"])
def hostile(request: pytest.FixtureRequest, postgresql: Database, alter: Alter) -> Database:
    """A database, or a role in it, to which everything is set that the service asks for otherwise."""
    whose = request.param.format(name=make_url(postgresql.url).database)
    # The last one ends the connection by which it was set, if it errs.
    alter(postgresql, *(f"ALTER {whose} SET {name} = '{hostile}'" for name, (hostile, _) in ASKED_FOR.items()))
    return postgresql


def session_of(app: Flask) -> str | None:
    """What is wrong, by ``/readyz`` and by the check alike."""
    with app.app_context():
        faults = app.extensions["readiness"].run_checks()
    answer = client_of(app).get("/readyz")
    assert answer.status_code == (503 if faults else 200)
    assert answer.json.get("data") == ({"failed": [*faults]} if faults else None)
    fault: str | None = faults.get("session")
    return fault


def test_every_setting_that_a_client_has_is_decided_upon(postgresql: Database) -> None:
    decided = {*ASKED_FOR, *schema_checks.SESSION_VALUES, *LEFT_BY_NAME, "search_path", "transaction_timeout"}
    with engine_on(postgresql.url) as engine, engine.connect() as connection:
        settings = connection.execute(
            text("SELECT name, category FROM pg_settings WHERE context LIKE '%user' OR context LIKE '%backend'")
        ).all()

    assert len(settings) > 150
    assert [
        name for name, category in settings if name not in decided and not category.startswith(tuple(LEFT_BY_CATEGORY))
    ] == []


def test_what_a_database_or_a_role_sets_is_not_what_our_connections_have(hostile: Database) -> None:
    with app_with(hostile.url) as app, engine_of(app).connect() as connection:
        shown = {name: connection.scalar(text(f"SHOW {name}")) for name in ASKED_FOR}

    assert shown == {name: ours for name, (_, ours) in ASKED_FOR.items()}


def test_requests_are_answered_as_ever_whatever_a_database_or_a_role_sets(hostile: Database) -> None:
    name = "Niño Muñoz-Dela Peña, Jr. 李"
    with app_on(hostile) as (app, people):
        assert session_of(app) is None
        with engine_of(app).begin() as connection:
            connection.execute(text("UPDATE users SET name = :name"), {"name": name})
        login = {"email": people.patient.email, "password": PASSWORD}
        assert people.anonymous().post("/api/login", json=login).status_code == 200
        assert people.patient.get("/me").json["data"]["name"] == name
        assert [people.patient.pay(number, key="k").status_code for number in (1, 1, 2)] == [201, 201, 422]
        payment_id = people.patient.pay(1).json["data"]["payment_id"]
        assert people.patient.pay(1).status_code == 409
        assert people.patient.confirm(payment_id).status_code == 200
        assert people.patient.confirm(people.patient.pay(2).json["data"]["payment_id"]).status_code == 409
        refund = {"amount": 1000, "reason": "Ñandú 退"}
        assert (
            people.admin.post(f"/payments/{payment_id}/refund", refund).json["data"]["refund"]["reason"] == "Ñandú 退"
        )
        (shown, _) = people.patient.get("/payments").json["data"][::-1]
        assert (shown["id"], shown["status"]) == (payment_id, "partially_refunded")
        assert shown["created_at"].endswith("Z")
        assert len(people.patient.get(f"/payments/{payment_id}/events").json["data"]) >= 3


def test_commands_work_whatever_a_database_or_a_role_sets(hostile: Database) -> None:
    with app_on(hostile) as (_, people), commands_on(hostile.url) as commands:
        payment_id = people.patient.pay(1).json["data"]["payment_id"]

        assert [row["id"] for row in commands.json("payments", "list")] == [payment_id]
        assert commands.ok("payments", "audit") == ""
        commands.ok("check")


@pytest.fixture(scope="module")
def with_schemas() -> Iterator[Database]:
    """A database with tables in more schemas than ours."""
    with fresh_database("postgresql") as database:
        with engine_on(database.url) as engine, engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA elsewhere"))
            connection.execute(text("CREATE SCHEMA other CREATE TABLE refunds (id int)"))
        yield database


@pytest.mark.parametrize("setting", SEEN)
def test_what_cannot_be_asked_for_stops_payments_until_it_is_right(
    with_schemas: Database, alter: Alter, setting: str
) -> None:
    whose = f'ALTER DATABASE "{make_url(with_schemas.url).database}"'
    with app_on(with_schemas) as (app, people):
        alter(with_schemas, f"{whose} SET {setting}")
        engine_of(app).dispose()
        try:
            assert session_of(app) == SEEN[setting]
            assert people.patient.pay(1).json["data"] == {"failed": ["session"]}
            with commands_on(with_schemas.url) as commands:
                assert f"bad   session      {SEEN[setting]}" in commands.run("check").output
        finally:
            alter(with_schemas, f"{whose} RESET {setting.partition(' ')[0]}")

        assert session_of(app) is None
        assert people.patient.get("/payments").status_code == 200


def test_a_schema_of_its_own_is_as_good(postgresql: Database, alter: Alter) -> None:
    alter(
        postgresql,
        "ALTER SCHEMA public RENAME TO clinic",
        f'ALTER DATABASE "{make_url(postgresql.url).database}" SET search_path = clinic',
    )
    with app_on(postgresql) as (app, people):
        assert session_of(app) is None
        assert people.patient.pay(1).status_code == 201


def test_a_policy_that_hides_rows_is_said_and_hides_none_quietly(postgresql: Database, alter: Alter) -> None:
    name = make_url(postgresql.url).database
    alter(
        postgresql,
        f'CREATE ROLE "{name}"',
        f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{name}"',
        f'GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO "{name}"',
        "ALTER TABLE payments ENABLE ROW LEVEL SECURITY",
    )
    # As the role's own settings would, it stops being the superuser that no policy is for.
    url = f"{postgresql.url}&options=-c role={name}"
    try:
        with app_on(Database(url, postgresql.close)) as (app, people):
            assert session_of(app) == "row level security hides rows of payments"
            assert people.patient.get("/payments").status_code == 503
    finally:
        alter(postgresql, f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


def test_a_transaction_timeout_below_a_statements_is_said(postgresql: Database, alter: Alter) -> None:
    name = make_url(postgresql.url).database
    with engine_on(postgresql.url) as engine, engine.connect() as connection:
        if connection.scalar(text("SELECT current_setting('transaction_timeout', true)")) is None:
            pytest.skip("PostgreSQL before 17 has none")
    alter(postgresql, f"ALTER DATABASE \"{name}\" SET transaction_timeout = '4s'")

    with app_with(postgresql.url) as app:
        assert session_of(app) == "transaction_timeout is 4000 ms, less than a statement may take (5000)"
    with commands_on(postgresql.url) as commands:
        commands.ok("payments", "audit")
        with engine_of(commands.app).connect() as connection:
            assert connection.scalar(text("SHOW transaction_timeout")) == "0"

    alter(postgresql, f"ALTER DATABASE \"{name}\" SET transaction_timeout = '1min'")
    with app_with(postgresql.url) as app:
        assert session_of(app) is None


def test_behind_a_pooler_each_transaction_has_our_settings_whatever_a_database_or_a_role_sets(
    hostile: Database,
) -> None:
    with app_with(hostile.url, **BEHIND_PGBOUNCER) as app, app.app_context():
        assert session_of(app) is None
        views = current_engines()
        for engine in (views.reader, views.one_statement, views.writer):
            with engine.connect() as connection:
                isolation = connection.scalar(text("SHOW transaction_isolation"))
                shown = {
                    name: connection.scalar(text(f"SHOW {name}")) for name in ASKED_FOR.keys() - NOT_OF_A_TRANSACTION
                }
            assert isolation == "read committed"
            # The order of day and month is for texts that are read, and none are.
            assert shown.pop("DateStyle").startswith("ISO")
            assert shown == {name: ASKED_FOR[name][1] for name in shown}
        # Nothing of it stays on the connection, which another client uses next.
        with views.reader.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            assert driver.execute("SHOW synchronous_commit").fetchone() == ("off",)


def test_requests_behind_a_pooler_are_answered_as_ever(hostile: Database) -> None:
    with app_with(hostile.url, **BEHIND_PGBOUNCER) as app:
        people = People(app)
        people.add_consultations(Role.PATIENT, 31, 32)
        assert [people.patient.pay(number, key="k").status_code for number in (31, 31, 32)] == [201, 201, 422]
        payment_id = people.patient.get("/payments").json["data"][0]["id"]
        assert people.patient.confirm(payment_id).status_code == 200
        assert len(people.patient.get(f"/payments/{payment_id}/events").json["data"]) >= 2


@pytest.fixture(scope="module")
def pgbouncer() -> Iterator[tuple[Cluster, PgBouncer]]:
    with cluster_in_a_folder(fsync="off") as cluster, pgbouncer_before(cluster) as pgbouncer:
        yield cluster, pgbouncer


def test_behind_pgbouncer_what_no_transaction_can_set_is_said(pgbouncer: tuple[Cluster, PgBouncer]) -> None:
    cluster, pooler = pgbouncer

    def tell(statement: str) -> None:
        with cluster.connect() as administrator:
            administrator.execute(statement)
        pooler.kill()  # its connections were opened before
        pooler.start()

    def said() -> list[str]:
        with commands_on(pooler.url, **BEHIND_PGBOUNCER) as commands:
            lines = commands.run("check").output.splitlines()
        return [line.split(maxsplit=2)[2] for line in lines if line.split()[1] == "session"]

    tell("ALTER DATABASE postgres SET datestyle = 'German'")
    assert said() == ["no setting changes the meaning of statements"]

    tell("ALTER DATABASE postgres SET search_path = public, pg_catalog")
    assert said() == ["search_path has public before pg_catalog"]

    tell("ALTER DATABASE postgres RESET search_path")
    assert said() == ["no setting changes the meaning of statements"]


def test_a_server_that_does_not_wait_for_its_disk_is_said(pgbouncer: tuple[Cluster, PgBouncer]) -> None:
    cluster, pooler = pgbouncer

    def said(url: str = cluster.url, **settings: str) -> list[str]:
        with commands_on(url, **settings) as commands:
            return [line for line in commands.run("check").output.splitlines() if "durability" in line]

    assert said() == ["note  durability   fsync is off: committed payments may be lost in a power cut"]
    assert said(pooler.url, **BEHIND_PGBOUNCER) == said()

    cluster.set(fsync="on")
    cluster.reload()
    wait_until(lambda: said() == [])
