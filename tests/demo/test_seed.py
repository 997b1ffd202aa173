"""``flask demo seed``: something to try the service with, as often as one likes."""

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
        assert "not allowed in production" in commands.refused("demo", "seed")

    assert rows.count("users") == 0
