"""``flask demo seed``: something to try the service with, as often as one likes."""

import subprocess

import pytest

from tests.support.apps import PRODUCTION
from tests.support.databases import Database, flask
from tests.support.rows import EVERYTHING, Rows


def test_seeding_twice_changes_nothing(database: Database, rows: Rows) -> None:
    flask(database.url, "demo", "seed")
    once = rows.counts(*EVERYTHING)
    kept = rows.all("SELECT * FROM users ORDER BY id") + rows.all("SELECT * FROM consultations ORDER BY id")

    flask(database.url, "demo", "seed")

    assert once["users"] == 3
    assert once["consultations"] == 20
    assert rows.counts(*EVERYTHING) == once
    assert rows.all("SELECT * FROM users ORDER BY id") + rows.all("SELECT * FROM consultations ORDER BY id") == kept


def test_seeding_more_adds_what_is_missing_in_batches(database: Database, rows: Rows) -> None:
    flask(database.url, "demo", "seed", "--consultations", "3")
    flask(database.url, "demo", "seed", "--consultations", "20001")

    counted = rows.one("SELECT count(*) AS n, min(id) AS first, max(id) AS last FROM consultations")
    assert counted == {"n": 20_001, "first": 1, "last": 20_001}


def test_production_is_not_seeded(database: Database, rows: Rows) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        flask(database.url, "demo", "seed", **PRODUCTION)

    assert refusal.value.returncode == 2
    assert "not in production" in refusal.value.stderr
    assert rows.count("users") == 0
