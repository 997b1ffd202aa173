"""``flask demo``: something to try the service with, as often as one likes."""

import re
from collections.abc import Iterator

import pytest

from tests.support.apps import PRODUCTION
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.rows import EVERYTHING, Rows


@pytest.fixture
def commands(database: Database) -> Iterator[CommandRunner]:
    with commands_on(database.url) as commands:
        yield commands


def test_seeding_twice_changes_nothing(commands: CommandRunner, rows: Rows) -> None:
    commands.ok("demo", "seed")
    once = rows.counts(*EVERYTHING)
    kept = rows.all("SELECT * FROM users ORDER BY id") + rows.all("SELECT * FROM consultations ORDER BY id")

    commands.ok("demo", "seed")

    assert once["users"] == 3
    assert once["consultations"] == 20
    assert rows.counts(*EVERYTHING) == once
    assert rows.all("SELECT * FROM users ORDER BY id") + rows.all("SELECT * FROM consultations ORDER BY id") == kept


def test_seeding_more_adds_what_is_missing_in_batches(commands: CommandRunner, rows: Rows) -> None:
    commands.ok("demo", "seed", "--consultations", 3)
    commands.ok("demo", "seed", "--consultations", 20_001)

    counted = rows.one("SELECT count(*) AS n, min(id) AS first, max(id) AS last FROM consultations")
    assert counted == {"n": 20_001, "first": 1, "last": 20_001}


def test_production_is_not_seeded(database: Database, rows: Rows) -> None:
    with commands_on(database.url, **PRODUCTION) as commands:
        for command in ("seed", "link"):
            assert "not allowed in production" in commands.refused("demo", command)

    assert rows.counts("users", "payment_links") == {"users": 0, "payment_links": 0}


def test_the_link_of_the_demo_is_of_a_consultation_that_is_not_paid(database: Database, rows: Rows) -> None:
    with commands_on(database.url, PUBLIC_URL="http://127.0.0.1:9000") as commands:
        commands.ok("demo", "seed", "--consultations", 2)
        links = [commands.ok("demo", "link").strip()]
        rows.execute("UPDATE consultations SET closed_at = created_at WHERE id = 2")
        links.append(commands.ok("demo", "link").strip())
        rows.execute("UPDATE consultations SET closed_at = created_at")
        assert "every consultation is paid" in commands.ok("demo", "link")

    assert all(re.fullmatch(r"http://127\.0\.0\.1:9000/pay/[\w-]{43}", link) for link in links)
    of = [row["consultation_id"] for row in rows.all("SELECT * FROM payment_links ORDER BY id")]
    assert of == [2, 1]


def test_without_its_address_there_is_no_link(commands: CommandRunner) -> None:
    assert "PUBLIC_URL is not set" in commands.refused("demo", "link")
