"""API keys from the command line."""

from datetime import timedelta

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from payments_app.accounts import api_keys
from payments_app.accounts.api_keys import NewKey
from payments_app.accounts.models import Scope
from tests.api.assertions import assert_problem
from tests.support.commands import CommandRunner
from tests.support.people import People, Person
from tests.support.rows import Rows

BOOKING = ("--user", "booking@example.com")


def program(people: People, key: str) -> Person:
    return Person(people.anonymous(), people.booking.id, people.booking.email, key)


def test_a_key_is_made_listed_and_revoked(commands: CommandRunner, people: People) -> None:
    (made,) = commands.json("keys", "create", "site", *BOOKING, "--scope", "payments:read", "--scope", "events:read")
    assert program(people, made["key"]).get("/payments").status_code == 200

    listed = commands.ok("keys", "list", "--user", "booking@example.com")
    assert "events:read payments:read" in listed
    assert made["key"][:12] in listed
    assert made["key"] not in listed
    for _ in range(2):
        commands.ok("keys", "revoke", made["id"])

    assert_problem(program(people, made["key"]).get("/payments"), 401)
    (row,) = commands.json("keys", "list")
    assert (row["id"], row["state"], row["expires_at"]) == (made["id"], "revoked", None)
    assert row["last_used_at"] is not None
    assert commands.ok("keys", "list", "--user", "admin@example.com").strip() == "no API keys"


def test_a_key_is_replaced_by_one_like_it(commands: CommandRunner, people: People) -> None:
    (old,) = commands.json("keys", "create", "site", *BOOKING, "--scope", "payments:read", "--expires", 90)
    (new,) = commands.json("keys", "rotate", old["id"])

    assert new["scopes"] == old["scopes"]
    assert new["expires_at"] >= old["expires_at"]
    for key in (old["key"], new["key"]):
        assert program(people, key).get("/payments").status_code == 200
    newest, oldest = commands.json("keys", "list")
    assert newest["name"] == oldest["name"] == "site"
    assert oldest["expires_at"] < newest["expires_at"]

    (newest_made,) = commands.json("keys", "rotate", new["id"], "--overlap", 0)
    assert_problem(program(people, new["key"]).get("/payments"), 401)
    assert program(people, newest_made["key"]).get("/payments").status_code == 200


def test_what_is_wrong_is_one_line(commands: CommandRunner, rows: Rows) -> None:
    scope = ("--scope", "payments:read")
    create = ("keys", "create")

    assert "--scope" in commands.refused(*create, "site", *BOOKING)
    assert "payments:read" in commands.refused(*create, "site", *BOOKING, "--scope", "payments:all")
    assert "NAME" in commands.refused(*create, "", *BOOKING, *scope)
    assert "NAME" in commands.refused(*create, "a" * 65, *BOOKING, *scope)
    assert "1<=x" in commands.refused(*create, "site", *BOOKING, *scope, "--expires", 0)
    assert "No user has" in commands.refused(*create, "site", "--user", "nobody@example.com", *scope)
    assert "commands run as" in commands.refused(*create, "site", "--user", "commands@system.invalid", *scope)
    assert "No such API key" in commands.refused("keys", "revoke", 999)
    assert "No such API key" in commands.refused("keys", "rotate", 999)
    assert rows.count("api_keys") == 0

    commands.ok("users", "disable", "booking@example.com")
    assert "No user has" in commands.refused(*create, "site", *BOOKING, *scope)


@pytest.mark.parametrize("verb", ["create", "rotate"])
def test_a_key_whose_commit_was_not_heard_of_is_made_once(people: People, app: Flask, rows: Rows, verb: str) -> None:
    """The next attempt finds what the first has committed, and gives out the key that is in the database."""
    new = NewKey(name="site", scopes=[Scope.PAYMENTS_READ], lifetime=None, created_by="tests")
    lost: list[Session] = []

    def lose_the_first(session: Session) -> None:
        lost.append(session)
        if len(lost) == 1:
            raise OperationalError(None, None, psycopg.OperationalError(), connection_invalidated=True)

    with app.app_context():
        if verb == "rotate":
            old, _ = api_keys.create(new, email=people.booking.email)
        event.listen(Session, "after_commit", lose_the_first)
        try:
            if verb == "create":
                row, key = api_keys.create(new, email=people.booking.email)
            else:
                row, key = api_keys.rotate(old.id, overlap=timedelta(0), created_by="tests")
        finally:
            event.remove(Session, "after_commit", lose_the_first)

    assert len(lost) == 2
    assert rows.count("api_keys") == (1 if verb == "create" else 2)
    assert program(people, key).get("/payments").status_code == 200
    assert row.expires_at is None
