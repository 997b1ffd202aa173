"""``flask demo``: something to try the service with, as often as one likes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from payments_app.accounts import api_keys
from payments_app.demo import service
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
        for command in ("seed", "link", "run"):
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


def test_the_booking_site_gets_a_key_and_an_endpoint_once(app: Flask, rows: Rows, tmp_path: Path) -> None:
    file = tmp_path / "key"
    with app.app_context():
        made = [service.get_or_create_key(file) for _ in range(2)]
        secrets = {service.get_or_create_endpoint(f"http://127.0.0.1:{port}/webhooks") for port in (8080, 8080, 9001)}
        (key,) = rows.all("SELECT id FROM api_keys")
        api_keys.revoke(key["id"], actor="tests")
        made.append(service.get_or_create_key(file))

    assert file.stat().st_mode & 0o777 == 0o600
    assert (made[0] == made[1], made[1] == made[2], len(secrets)) == (True, False, 1)
    assert [row["url"] for row in rows.all("SELECT url FROM webhook_endpoints")] == ["http://127.0.0.1:9001/webhooks"]


def test_the_demo_needs_two_ports(commands: CommandRunner) -> None:
    assert "need one each" in commands.refused("demo", "run", "--port", 9000, "--site-port", 9000)
