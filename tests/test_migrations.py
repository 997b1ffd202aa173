"""The migrations make the tables that the models describe, can be taken back, and never hold everybody up."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import Result
from sqlalchemy import (
    CheckConstraint,
    Connection,
    Engine,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    UniqueConstraint,
    inspect,
    text,
)

from payments_app.accounts.emails import normalized
from payments_app.db.base import Base
from payments_app.gateways.references import normalized_reference
from payments_app.payments.models.status import PaymentStatus
from tests.payments.test_references_by_hand import OTHERS, SPELLINGS
from tests.support.apps import engine_of, make_app
from tests.support.databases import ROOT, make_postgresql
from tests.support.dialects import DIALECTS
from tests.support.fresh_databases import engine_on, fresh_database
from tests.support.raw_rows import MOMENT, Raw
from tests.support.waiting import wait_until

# From the first to the last.
REVISIONS = [script.revision for script in reversed(list(ScriptDirectory(str(ROOT / "migrations")).walk_revisions()))]

BEFORE_EMAILS = REVISIONS[REVISIONS.index("0005") - 1]

# Far more than a statement takes: only one that is stuck for good runs into it.
STUCK_MS = 20_000


@pytest.fixture(params=DIALECTS)
def unmigrated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database of each kind without any table."""
    if request.param == "sqlite":
        with engine_on(f"sqlite:///{tmp_path / 'payments.db'}") as engine:
            yield engine
    else:
        database = make_postgresql(migrated=False)
        with engine_on(database.url) as engine:
            yield engine
        database.close()


@pytest.fixture(params=DIALECTS)
def migrated(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A database of each kind with all tables, which the test may break."""
    with fresh_database(request.param) as database, engine_on(database.url) as engine:
        yield engine


def test_every_step_up_and_down_and_up_again_works_and_is_written_down(unmigrated: Engine) -> None:
    for revision in REVISIONS:
        migrate(unmigrated, "upgrade", revision)
        assert written_down(unmigrated) == [revision]
    first_time = everything_in(unmigrated)
    assert set(first_time) == {*Base.metadata.tables, "alembic_version"}

    for revision in [*reversed(REVISIONS[:-1]), "base"]:
        migrate(unmigrated, "downgrade", revision)
        assert written_down(unmigrated) == ([] if revision == "base" else [revision])
    assert set(everything_in(unmigrated)) == {"alembic_version"}
    assert left_over(unmigrated) == []

    migrate(unmigrated, "upgrade", "head")
    assert written_down(unmigrated) == REVISIONS[-1:]
    assert everything_in(unmigrated) == first_time


def test_rows_of_the_first_release_outlive_the_second_and_the_way_back(unmigrated: Engine) -> None:
    migrate(unmigrated, "upgrade", "0001")
    raw = Raw(unmigrated)
    patient_id = raw.user()
    for status in PaymentStatus:
        payment_id = raw.payment(patient_id, raw.consultation(patient_id), status)
        raw.invoice(payment_id)
        raw.tax_record(payment_id)
        raw.event(payment_id)
        raw.session(payment_id)
        raw.key(patient_id, payment_id)
    before = all_rows(unmigrated)
    assert {len(found) for table, found in before.items() if table.endswith("s") and table != "users"} == {
        2, len(PaymentStatus),
    }  # fmt: skip  # two blocks of ids, and else one row for each payment

    migrate(unmigrated, "upgrade", "0002")
    payments = [{**row, "review_held": False} for row in before["payments"]]
    assert all_rows(unmigrated) == {**before, "payments": payments, "refunds": [], "webhook_events": []}
    raw.refund(payment_id)
    raw.webhook_event(payment_id)
    raw.key(patient_id, payment_id, key="refunded", refund_id=1)

    assert migrate(unmigrated, "downgrade", "0001").exit_code == 2  # a refund is not forgotten
    with unmigrated.begin() as connection:
        connection.execute(text("DELETE FROM idempotency_keys WHERE key = 'refunded'"))
        connection.execute(text("DELETE FROM refunds"))
    migrate(unmigrated, "downgrade", "0001")
    assert all_rows(unmigrated) == before


def test_credit_notes_are_not_forgotten_and_older_rows_keep_the_meaning_of_their_tax(unmigrated: Engine) -> None:
    before = REVISIONS[REVISIONS.index("0011") - 1]
    migrate(unmigrated, "upgrade", before)
    raw = Raw(unmigrated)
    patient_id = raw.user()
    payment_id = raw.payment(patient_id, raw.consultation(patient_id), "completed")
    raw.tax_record(payment_id)
    raw.refund(payment_id)
    migrate(unmigrated, "upgrade", "0011")
    stored = all_rows(unmigrated)
    assert [row["tax_basis"] for row in stored["tax_records"]] == ["amount"]
    assert [row["credit_note_id"] for row in stored["refunds"]] == [None]

    raw.credit_note(payment_id)
    assert migrate(unmigrated, "downgrade", before).exit_code == 2
    assert len(all_rows(unmigrated)["credit_notes"]) == 1


def test_the_way_back_is_closed_while_refunds_wait_for_people(unmigrated: Engine) -> None:
    """The release before would send what nobody approved, or count as sent what is to be sent."""
    migrate(unmigrated, "upgrade", "0010")
    raw = Raw(unmigrated)
    patient_id = raw.user()
    payment_id = raw.payment(patient_id, raw.consultation(patient_id), "completed")
    for status in ("requested", "pending"):
        refund_id = raw.refund(payment_id, status=status, by_hand=True, reference=None)
        before = everything_in(unmigrated)
        assert migrate(unmigrated, "downgrade", "0009").exit_code == 2
        assert everything_in(unmigrated) == before
        raw.update("refunds", refund_id, status="failed", settled_at=MOMENT)

    # It settles a refund by hand at once, and leaves the new columns as they are.
    raw.refund(payment_id, status="succeeded", gateway="manual")
    assert migrate(unmigrated, "downgrade", "0009").exit_code == 0
    assert migrate(unmigrated, "upgrade", "0010").exit_code == 0
    found = all_rows(unmigrated)["refunds"]
    assert sorted((row["status"], row["by_hand"], row["requested_by"]) for row in found) == [
        ("failed", False, None),
        ("failed", False, None),
        ("succeeded", False, None),
    ]


def test_references_by_hand_are_filled_in_and_what_two_payments_share_is_reported(unmigrated: Engine) -> None:
    migrate(unmigrated, "upgrade", "0003")
    raw = Raw(unmigrated)
    patient_id = raw.user()

    def paid(reference: str, *, gateway: str = "manual", method: str = "gcash") -> int:
        how = {"gateway": gateway, "payment_method": method, "transaction_id": reference, "review_held": False}
        return raw.payment(patient_id, raw.consultation(patient_id), "completed", **how)

    first, second = paid("GCash 0917-555"), paid("gcash\u00a00917\u2010555")
    third = paid("GCash 0917-555", method="bank_transfer")
    nothing, hidden = paid("---"), paid("GCash\u200b0917\x1b555")
    long = paid("\ufdfa" * 200)
    paid("pi_1", gateway="stripe", method="stripe")

    said = migrate(unmigrated, "upgrade", "head").stdout

    assert references(unmigrated) == {first: "gcash0917555", third: "gcash0917555"}
    (repeated, without, unseen, too_long) = (line for line in said.splitlines() if line.startswith("payment "))
    assert repeated.startswith(f"payment {second}: ")
    assert f"payment {first}" in repeated
    assert without.startswith(f"payment {nothing}: ")
    assert unseen.startswith(f"payment {hidden}: ")
    assert said.isascii()  # whatever was typed once, a terminal is shown its escapes
    assert "\x1b" not in said
    assert too_long.startswith(f"payment {long}: too long")
    assert len(too_long) < 500
    assert "4 payments by hand go without a reference that is compared" in said


def test_a_filling_in_that_was_cut_short_goes_on(unmigrated: Engine) -> None:
    """On PostgreSQL it is committed bit by bit; on SQLite as a whole, so that there is nothing to go on with."""
    migrate(unmigrated, "upgrade", "0003")
    raw = Raw(unmigrated)
    patient_id = raw.user()
    by_hand = {"gateway": "manual", "payment_method": "gcash", "review_held": False}
    ids = [
        raw.payment(patient_id, raw.consultation(patient_id), "completed", transaction_id=f"REF {n}", **by_hand)
        for n in range(3)
    ]
    filled = {payment_id: f"ref{n}" for n, payment_id in enumerate(ids)}
    migrate(unmigrated, "upgrade", "0004")
    assert references(unmigrated) == filled
    if unmigrated.dialect.name == "sqlite":
        return

    with unmigrated.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0003'"))
        connection.execute(text("UPDATE payments SET normalized_reference = NULL WHERE id <> :id"), {"id": ids[0]})
    migrate(unmigrated, "upgrade", "0004")

    assert references(unmigrated) == filled


def test_the_migration_compares_references_as_the_service_does() -> None:
    migration = ScriptDirectory(str(ROOT / "migrations")).get_revision("0004").module
    for spelling in [*SPELLINGS.values(), *OTHERS, *map(chr, range(0x10000)), *map(chr, range(0xE0000, 0xE0200))]:
        assert migration._normalized(spelling) == normalized_reference("manual", spelling), ascii(spelling)


def references(engine: Engine) -> dict[int, str]:
    with engine.connect() as connection:
        found = text("SELECT id, normalized_reference FROM payments WHERE normalized_reference IS NOT NULL")
        return {row.id: row.normalized_reference for row in connection.execute(found)}


def test_addresses_are_filled_in_beside_what_is_there_and_what_two_users_share_is_reported(unmigrated: Engine) -> None:
    migrate(unmigrated, "upgrade", BEFORE_EMAILS)
    raw = Raw(unmigrated)
    emails = [
        "plain@b.example", "jose\u0301@b.example", "jos\u00e9@b.example", "joy@m\u00fcnchen.example",
        "joy@xn--mnchen-3ya.example", "o\u0308@b.example", "\u00f6\u0301\u0323@b.example", "a@strasse.example",
        "\u00df" * 130 + "@b.example",
    ]  # fmt: skip
    ids = [raw.user(email=email) for email in emails]

    said = migrate(unmigrated, "upgrade", "0005").stdout

    assert addresses(unmigrated) == {
        ids[0]: "plain@b.example",
        ids[2]: "jos\u00e9@b.example",  # the one that is normalized already
        ids[4]: "joy@xn--mnchen-3ya.example",
        ids[5]: "\u00f6@b.example",
        ids[6]: "\u1ecd\u0308\u0301@b.example",
        ids[7]: "a@strasse.example",
    }
    decomposed, unicode_domain, too_long = (line for line in said.splitlines() if line.startswith("user "))
    assert decomposed.startswith(f'user {ids[1]}: the e-mail address "jose\\u0301@b.example" is that of user {ids[2]} ')
    assert unicode_domain.startswith(f"user {ids[3]}: ")
    assert f"user {ids[4]} " in unicode_domain
    assert too_long.startswith(f"user {ids[8]}: ")
    assert said.isascii()  # two spellings of one address look alike: their escapes do not
    assert "3 users log in by one spelling of their e-mail address only" in said
    # The release before finds users by what it wrote.
    with unmigrated.connect() as connection:
        assert list(connection.scalars(text("SELECT email FROM users ORDER BY id"))) == emails
    raw.user(email="jo\u0302@b.example")  # which that release still adds
    migrate(unmigrated, "downgrade", BEFORE_EMAILS)
    with unmigrated.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == len(emails) + 1


def test_a_filling_in_of_addresses_that_was_cut_short_goes_on(unmigrated: Engine) -> None:
    """On PostgreSQL it is committed bit by bit; on SQLite as a whole, so that there is nothing to go on with."""
    migrate(unmigrated, "upgrade", BEFORE_EMAILS)
    raw = Raw(unmigrated)
    ids = [raw.user(email=email) for email in ("a@b.example", "jose\u0301@b.example", "c@b.example")]
    filled = dict(zip(ids, ("a@b.example", "jos\u00e9@b.example", "c@b.example"), strict=True))
    migrate(unmigrated, "upgrade", "0005")
    assert addresses(unmigrated) == filled
    if unmigrated.dialect.name == "sqlite":
        return

    with unmigrated.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :before"), {"before": BEFORE_EMAILS})
        connection.execute(text("UPDATE users SET normalized_email = NULL WHERE id <> :id"), {"id": ids[0]})
    migrate(unmigrated, "upgrade", "0005")

    assert addresses(unmigrated) == filled


def test_an_address_is_filled_in_while_a_payment_of_its_user_is_inserted() -> None:
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        user_id = Raw(engine).user(email="a@b.example")
        with engine.begin() as payer, engine.begin() as filling:
            payer.execute(text("SELECT id FROM users FOR KEY SHARE"))  # as a foreign key locks it until the commit
            filling.execute(text("SET LOCAL lock_timeout = 200"))
            filling.execute(text("UPDATE users SET normalized_email = email"))
        assert addresses(engine) == {user_id: "a@b.example"}


def test_the_migration_compares_addresses_as_the_service_does() -> None:
    migration = ScriptDirectory(str(ROOT / "migrations")).get_revision("0005").module
    for code in (*range(0x3000), *range(0xAB00, 0xAC00), *range(0xD7F0, 0xD900), *range(0xFB00, 0x10500)):
        email = f"{chr(code)}@{chr(code)}b.example"
        assert migration._normalized(email) == normalized(email), ascii(email)


def addresses(engine: Engine) -> dict[int, str]:
    with engine.connect() as connection:
        found = text("SELECT id, normalized_email FROM users WHERE normalized_email IS NOT NULL")
        return {row.id: row.normalized_email for row in connection.execute(found)}


def test_upgrading_what_is_up_to_date_changes_nothing(migrated: Engine) -> None:
    with migrated.begin() as connection:
        connection.execute(text("UPDATE id_blocks SET next_id = 777"))
    before = everything_in(migrated)

    migrate(migrated, "upgrade", "head")

    assert everything_in(migrated) == before
    with migrated.connect() as connection:
        assert set(connection.scalars(text("SELECT next_id FROM id_blocks"))) == {777}


def test_autogenerate_finds_nothing_to_change(migrated: Engine) -> None:
    with migrated.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_migrated_tables_equal_the_models_in_every_constraint_index_and_predicate(migrated: Engine) -> None:
    with fresh_database(migrated.dialect.name) as database, engine_on(database.url) as modelled:
        with modelled.begin() as connection:
            Base.metadata.drop_all(connection)
            Base.metadata.create_all(connection)
        expected = everything_in(modelled)

    found = everything_in(migrated)

    assert found.keys() == expected.keys()
    for table in Base.metadata.tables:
        assert found[table] == expected[table]


def test_the_comparison_sees_what_autogenerate_does_not(migrated: Engine) -> None:
    """Or else the test above could pass for want of eyes."""
    before = everything_in(migrated)["payments"]
    with migrated.begin() as connection:
        connection.execute(text("DROP INDEX uq_payments_active_consultation"))
        connection.execute(
            text(
                "CREATE UNIQUE INDEX uq_payments_active_consultation ON payments (consultation_id) "
                "WHERE status IN ('pending', 'completed') AND deleted_at IS NULL"
            )
        )

    after = everything_in(migrated)["payments"]

    assert [kind for kind in before if before[kind] != after[kind]] == ["indexes"]


def test_every_constraint_and_index_has_the_name_that_the_models_give_it(migrated: Engine) -> None:
    inspector = inspect(migrated)
    for table in Base.metadata.tables.values():
        given = {str(constraint.name) for constraint in table.constraints} | {
            str(index.name) for index in table.indexes
        }
        found = [
            inspector.get_pk_constraint(table.name)["name"],
            *(key["name"] for key in inspector.get_foreign_keys(table.name)),
            *(unique["name"] for unique in inspector.get_unique_constraints(table.name)),
            *(check["name"] for check in inspector.get_check_constraints(table.name)),
            *(index["name"] for index in inspector.get_indexes(table.name) if "duplicates_constraint" not in index),
        ]
        assert None not in found
        assert sorted(map(str, found)) == sorted(given)


def test_names_tell_the_kind_and_the_table() -> None:
    prefixes = {
        PrimaryKeyConstraint: "pk",
        ForeignKeyConstraint: "fk",
        UniqueConstraint: "uq",
        CheckConstraint: "ck",
    }
    for table in Base.metadata.tables.values():
        for constraint in table.constraints:
            assert str(constraint.name).startswith(f"{prefixes[type(constraint)]}_{table.name}")
        for index in table.indexes:
            assert str(index.name).startswith(f"{'uq' if index.unique else 'ix'}_{table.name}")


def test_a_migration_that_fails_halfway_leaves_nothing_behind(unmigrated: Engine) -> None:
    with unmigrated.begin() as connection:  # one of the last to be made: most of the work is done when it is met
        connection.execute(text("CREATE TABLE payment_events (mine INTEGER)"))

    refused = migrate(unmigrated, "upgrade", "head")
    assert (refused.exit_code, "payment_events" in refused.stderr) == (2, True)

    assert set(everything_in(unmigrated)) - {"alembic_version"} == {"payment_events"}

    with unmigrated.begin() as connection:
        connection.execute(text("DROP TABLE payment_events"))
    migrate(unmigrated, "upgrade", "head")
    assert written_down(unmigrated) == REVISIONS[-1:]


def test_a_migration_that_meets_a_long_reader_gives_up_and_lets_the_others_through() -> None:
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        before = everything_in(engine)
        # The reader lets go first, so that a migration which would wait for ever fails here, and does not hang.
        with ThreadPoolExecutor(1) as pool, engine.connect() as reader, engine.connect() as other:
            reader.execute(
                text("SELECT count(*) FROM payments, users, payment_events, refunds")
            )  # ACCESS SHARE until its transaction ends
            other.execute(text(f"SET lock_timeout = {STUCK_MS}"))
            other.execute(text(f"SET statement_timeout = {STUCK_MS}"))
            other.commit()

            migration = pool.submit(migrate, engine, "downgrade", "base", MIGRATION_LOCK_TIMEOUT_MS="200")
            while not migration.done():
                # Whichever of them queues up behind the migration gets through once that has given up.
                assert other.scalar(text("SELECT count(*) FROM payments")) == 0
                other.commit()
                time.sleep(0.005)

            stuck = migration.result()
            assert (stuck.exit_code, "canceling statement due to lock timeout" in stuck.stderr) == (2, True)
            # The reader still reads, and nobody waits in front of anybody else.
            assert reader.in_transaction()
            assert other.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")) == 0
            assert other.scalar(text("SELECT count(*) FROM payments")) == 0

        assert everything_in(engine) == before
        assert written_down(engine) == REVISIONS[-1:]

        migrate(engine, "downgrade", "base", MIGRATION_LOCK_TIMEOUT_MS="200")
        assert written_down(engine) == []


def test_a_migration_that_loses_a_deadlock_is_tried_again() -> None:
    """Dropping a table locks it, and then the one that its foreign key leads to."""
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        migrate(engine, "downgrade", "0007")
        with ThreadPoolExecutor(1) as pool, engine.connect() as other, engine.connect() as observer:
            # PostgreSQL ends whichever looks for a deadlock first: the migration, after 1 s of waiting.
            other.execute(text(f"SET deadlock_timeout = {STUCK_MS}"))
            other.commit()
            other.execute(text("LOCK TABLE users IN ROW EXCLUSIVE MODE"))
            migration = pool.submit(migrate, engine, "downgrade", "0006", MIGRATION_LOCK_TIMEOUT_MS=str(STUCK_MS))
            waiting = text("SELECT count(*) FROM pg_locks WHERE relation = CAST('users' AS regclass) AND NOT granted")
            wait_until(lambda: observer.scalar(waiting) == 1)

            other.execute(text("SELECT count(*) FROM api_keys"))  # which the migration has locked
            other.rollback()

            assert migration.result().output.splitlines()[-2:] == [
                "lost a deadlock with a running payment: trying again",
                "migrated to ('0006',)",
            ]
        assert written_down(engine) == ["0006"]


def test_indexes_are_built_beside_writers_and_anew_where_a_build_was_cut_short() -> None:
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        complete = everything_in(engine)
        migrate(engine, "downgrade", "0002")
        with engine.connect() as writer, engine.connect() as other:
            writer.execute(text("LOCK TABLE payments IN ROW EXCLUSIVE MODE"))  # as whoever is in the middle of paying
            other.execute(text(f"SET lock_timeout = {STUCK_MS}"))

            stuck = migrate(engine, "upgrade", "0003", MIGRATION_LOCK_TIMEOUT_MS="200")
            assert (stuck.exit_code, "due to lock timeout" in stuck.stderr) == (2, True)

            assert broken_indexes(engine) == {"ix_payments_consultation_history"}
            assert written_down(engine) == ["0002"]
            other.execute(text("LOCK TABLE payments IN ROW EXCLUSIVE MODE"))  # nobody stands in the way of writers

        migrate(engine, "upgrade", "head")

        assert broken_indexes(engine) == set()
        assert everything_in(engine) == complete


def test_invoices_leave_room_on_their_pages_for_the_change_to_come() -> None:
    query = text("SELECT reloptions FROM pg_class WHERE oid = CAST('invoices' AS regclass)")
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        with engine.connect() as connection:
            assert connection.scalar(query) == ["fillfactor=90"]
        migrate(engine, "downgrade", "0002")
        with engine.connect() as connection:
            assert connection.scalar(query) is None


@pytest.mark.parametrize(
    ("environment", "lock_timeout"), [({}, "3s"), ({"MIGRATION_LOCK_TIMEOUT_MS": "1234"}, "1234ms")]
)
def test_every_statement_of_a_migration_waits_for_locks_as_long_as_was_set_and_runs_as_long_as_it_needs(
    environment: dict[str, str], lock_timeout: str
) -> None:
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE noted (lock_timeout text, statement_timeout text)"))
            connection.execute(
                text(
                    "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted "
                    "VALUES (current_setting('lock_timeout'), current_setting('statement_timeout')); END $$"
                )
            )
            connection.execute(
                text(
                    "CREATE EVENT TRIGGER note ON ddl_command_start WHEN TAG IN "
                    "('CREATE TABLE', 'CREATE INDEX', 'ALTER TABLE', 'DROP TABLE') EXECUTE FUNCTION note()"
                )
            )

        migrate(engine, "downgrade", "base", **environment)
        migrate(engine, "upgrade", "head", **environment)

        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM noted")) > 2 * len(Base.metadata.tables)
            assert {tuple(row) for row in connection.execute(text("SELECT * FROM noted"))} == {(lock_timeout, "0")}


def test_migrations_are_not_printed_as_sql_for_somebody_to_run_without_their_timeouts(migrated: Engine) -> None:
    refusal = migrate(migrated, "upgrade", "head", "--sql")

    assert refusal.exit_code == 2
    assert "CREATE TABLE" not in refusal.stdout
    assert "not printed as SQL" in refusal.output


def migrate(engine: Engine, *step: str, **environment: str) -> Result:
    """Run ``flask db``; here, not in a process of its own, which would take ten times as long."""
    app = _app_on(engine.url.render_as_string(hide_password=False))
    try:
        return app.test_cli_runner(catch_exceptions=False).invoke(args=["db", *step], env=environment)
    finally:
        engine_of(app).dispose()


# An app takes longer to make than a step to run, and all steps of a test are on one database.
_app_on = lru_cache(maxsize=1)(make_app)


def broken_indexes(engine: Engine) -> set[str]:
    """Those that no query may use, because their making was cut short."""
    with engine.connect() as connection:
        query = "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE NOT indisvalid"
        return set(connection.scalars(text(query)))


def written_down(engine: Engine) -> list[str]:
    """What Alembic believes the database is at."""
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT version_num FROM alembic_version")))


def everything_in(engine: Engine) -> dict[str, dict[str, Any]]:
    """Each table with all that can be said of it, in an order that does not depend on how it was written."""
    with engine.connect() as connection:
        inspector = inspect(connection)
        return {
            table: {
                "columns": {
                    column["name"]: (str(column["type"]), column["nullable"], column["default"])
                    for column in inspector.get_columns(table)
                },
                "primary key": _plain(inspector.get_pk_constraint(table)),
                "foreign keys": _by_name(inspector.get_foreign_keys(table)),
                "unique": _by_name(inspector.get_unique_constraints(table)),
                "checks": _by_name(inspector.get_check_constraints(table)),
                "indexes": _indexes(connection, table),
                "as the catalogue says it": _catalogue(connection, table),
            }
            for table in inspector.get_table_names()
        }


def _indexes(connection: Connection, table: str) -> dict[str, str | None]:
    """Each index as the statement that would make it, with its predicate."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :table"
    else:
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = :table"
    return {name: _normal(sql) for name, sql in connection.execute(text(query), {"table": table})}


def _catalogue(connection: Connection, table: str) -> dict[str, tuple[Any, ...]]:
    """What PostgreSQL says beyond what is asked above: deferrable, validated, enforced, and NOT NULL by its name."""
    if connection.dialect.name == "sqlite":
        return {}
    query = (
        "SELECT conname, pg_get_constraintdef(oid), condeferrable, convalidated, conenforced "
        "FROM pg_constraint WHERE conrelid = CAST(:table AS regclass)"
    )
    return {name: tuple(rest) for name, *rest in connection.execute(text(query), {"table": table})}


def all_rows(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table but Alembic's own, in some order that stays."""
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
        return {
            table: sorted(
                (dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()), key=repr
            )
            for table in tables
        }


def left_over(engine: Engine) -> list[str]:
    """Whatever is not a table and yet is still there."""
    if engine.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE tbl_name <> 'alembic_version'"
    else:
        query = (
            "SELECT relname FROM pg_class WHERE relnamespace = CAST('public' AS regnamespace) "
            "AND relname NOT LIKE 'alembic_version%'"
        )
    with engine.connect() as connection:
        return list(connection.scalars(text(query)))


def _by_name(constraints: Any) -> dict[Any, dict[str, Any]]:
    return {constraint["name"]: _plain(constraint) for constraint in constraints}


def _plain(constraint: Any) -> dict[str, Any]:
    return {name: _normal(value) if isinstance(value, str) else value for name, value in constraint.items()}


def _normal(sql: str | None) -> str | None:
    """The same text, however it was wrapped."""
    return None if sql is None else re.sub(r"\s+", " ", sql).strip()
