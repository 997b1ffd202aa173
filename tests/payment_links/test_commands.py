"""Payment links from the command line."""

from collections.abc import Iterator

import pytest

from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.links import exchange
from tests.support.people import People
from tests.support.rows import Rows

SETTINGS = {"PUBLIC_URL": "https://pay.example.org", "RETURN_URL_ORIGINS": "https://booking.example.org"}


@pytest.fixture
def commands(database: Database, people: People) -> Iterator[CommandRunner]:  # noqa: ARG001  # on an empty database
    with commands_on(database.url, **SETTINGS) as commands:
        yield commands


def test_a_link_is_made_listed_and_revoked(commands: CommandRunner, people: People) -> None:
    (link,) = commands.json("links", "create", 5, "--return-url", "https://booking.example.org/done")
    base, _, token = link["url"].rpartition("/")
    assert base == "https://pay.example.org/pay"
    assert exchange(people, token).status_code == 200

    listed = commands.ok("links", "list", 5)
    assert "open" in listed
    assert "https://booking.example.org/done" in listed
    assert token not in listed
    for _ in range(2):
        commands.ok("links", "revoke", 5, link["id"])

    assert exchange(people, token).status_code == 404
    (row,) = commands.json("links", "list", 5)
    assert (row["id"], row["state"]) == (link["id"], "revoked")
    assert commands.ok("links", "list", 6).strip() == "no links"


def test_all_links_are_listed_however_many(commands: CommandRunner, rows: Rows, people: People) -> None:
    link = people.admin.post("/consultations/5/links", {}).json["data"]
    copied = "consultation_id, created_by, created_at, expires_at"
    for number in range(201):
        rows.execute(
            f"INSERT INTO payment_links ({copied}, token_hash)"
            f" SELECT {copied}, :hash FROM payment_links WHERE id = :id",
            hash=f"{number:064x}",
            id=link["id"],
        )

    listed = [row["id"] for row in commands.json("links", "list", 5)]

    assert len(set(listed)) == len(listed) == 202
    assert listed == sorted(listed, reverse=True)


def test_what_is_wrong_is_one_line(commands: CommandRunner, database: Database, rows: Rows) -> None:
    assert "Consultation not found" in commands.refused("links", "create", 999)
    assert "RETURN_URL_ORIGINS" in commands.refused("links", "create", 5, "--return-url", "https://evil.example")
    assert "1<=x<=30" in commands.refused("links", "create", 5, "--expires-in", 31)
    assert "Not found" in commands.refused("links", "revoke", 5, 999)
    with commands_on(database.url) as without:
        assert "PUBLIC_URL is not set" in without.refused("links", "create", 5)

    assert rows.count("payment_links") == 0
