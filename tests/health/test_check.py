"""``flask check`` sees what is missing from the last line of defence."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from tests.support.commands import Commands, commands_on
from tests.support.databases import Database
from tests.support.fresh import engine_on, fresh_database
from tests.support.redis_server import RedisServer

INDEX = "uq_payments_active_consultation"


@pytest.fixture(params=["sqlite", "postgresql"])
def own_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    with fresh_database(request.param) as database:
        yield database


def verdicts(database: Database, **settings: str) -> dict[str, str]:
    """What is said of each thing; the exit code agrees with it."""
    with commands_on(database.url, **settings) as commands:
        return _verdicts(commands)


def _verdicts(commands: Commands) -> dict[str, str]:
    result = commands.run("check")
    found = {line.split()[1]: line.split()[0] for line in result.stdout.splitlines()}
    assert result.exit_code == (1 if "bad" in found.values() else 0)
    return found


def alter(database: Database, *statements: str) -> None:
    with engine_on(database.url) as engine, engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_a_migrated_database_is_sound(own_database: Database, redis_server: RedisServer) -> None:
    found = verdicts(own_database, REDIS_URL=redis_server.url)

    assert found == dict.fromkeys(("settings", "database", "index", "checks", "redis", "method"), "ok")


@pytest.mark.parametrize(
    "instead",
    [
        None,
        f"CREATE INDEX {INDEX} ON payments (consultation_id) WHERE status = 'pending'",
        f"CREATE UNIQUE INDEX {INDEX} ON payments (consultation_id) WHERE status = 'pending' AND deleted_at IS NULL",
        f"CREATE UNIQUE INDEX {INDEX} ON payments (consultation_id, user_id)",
    ],
)
def test_without_the_index_nothing_is_sound(own_database: Database, instead: str | None) -> None:
    alter(own_database, f"DROP INDEX {INDEX}", *([instead] if instead else []))

    found = verdicts(own_database)

    assert found["index"] == "bad"
    assert found["checks"] == "ok"


@pytest.mark.parametrize("held", ["", "refund_reserved_minor + refunded_minor <= received_minor + 1"])
def test_a_check_that_is_missing_or_altered_is_seen(held: str) -> None:
    check = "ck_payments_refunds_within_received"
    with fresh_database("postgresql") as database:
        again = [f"ALTER TABLE payments ADD CONSTRAINT {check} CHECK ({held})"] if held else []
        alter(database, f"ALTER TABLE payments DROP CONSTRAINT {check}", *again)

        assert verdicts(database)["checks"] == "bad"


def test_a_check_that_was_never_held_against_the_rows_is_seen() -> None:
    check = "ck_payments_refunds_within_received"
    held = "refund_reserved_minor + refunded_minor <= received_minor"
    with fresh_database("postgresql") as database:
        alter(
            database,
            f"ALTER TABLE payments DROP CONSTRAINT {check}",
            f"ALTER TABLE payments ADD CONSTRAINT {check} CHECK ({held}) NOT VALID",
        )

        assert verdicts(database)["checks"] == "bad"


def test_a_database_that_was_never_migrated_is_seen(own_database: Database) -> None:
    alter(own_database, "UPDATE alembic_version SET version_num = '0001'")

    assert verdicts(own_database)["database"] == "bad"


def test_what_cannot_be_reached_is_said_and_does_not_end_it(own_database: Database) -> None:
    away = Database("postgresql+psycopg://nobody@127.0.0.1:9/nothing", own_database.close)

    found = verdicts(away, REDIS_URL="redis://127.0.0.1:9/0")

    assert (found["database"], found["index"], found["checks"], found["redis"]) == ("bad", "bad", "bad", "note")


def test_stripe_without_a_webhook_secret_is_bad(own_database: Database) -> None:
    assert verdicts(own_database, STRIPE_API_KEY="sk_test_x")["webhooks"] == "bad"
    sound = verdicts(own_database, STRIPE_API_KEY="sk_test_x", STRIPE_WEBHOOK_SECRET="whsec_x")
    assert "webhooks" not in sound
