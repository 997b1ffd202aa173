"""A database that does not store text as UTF-8 gets no tables, and no payment is taken on one that has them."""

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url, text

from payments_app.db.base import Base
from tests.support.apps import app_with, engine_of
from tests.support.client import client_of
from tests.support.commands import commands_on
from tests.support.databases import ROOT, Database, _administer, make_postgresql
from tests.support.fresh_databases import engine_on

MENDED_BY = "createdb --encoding UTF8 --template template0 NAME"


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def other(request: pytest.FixtureRequest) -> Iterator[tuple[str, Database]]:
    """An empty database of another encoding, and what it is called."""
    server = make_postgresql(migrated=False)
    name = f"test_{uuid.uuid4().hex}"
    encoding = request.param
    _administer(server.url, f"CREATE DATABASE \"{name}\" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    url = make_url(server.url).set(database=name).render_as_string(hide_password=False)
    yield encoding, Database(url, server.close)
    _administer(server.url, f'DROP DATABASE "{name}" WITH (FORCE)')
    server.close()


def test_no_tables_are_made_in_it(other: tuple[str, Database]) -> None:
    encoding, database = other
    with commands_on(database.url) as commands:
        refused = commands.run("db", "upgrade")
    with engine_on(f"{database.url}&client_encoding=utf8") as engine, engine.connect() as connection:
        tables = connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))

    assert (refused.exit_code, refused.stdout, tables) == (2, "", 0)
    assert refused.stderr.startswith(f"Error: Nothing was migrated: server_encoding is {encoding}, not UTF8: ")
    assert MENDED_BY in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_no_payment_is_taken_where_there_are_tables(other: tuple[str, Database]) -> None:
    encoding, database = other
    with app_with(database.url) as app:
        Base.metadata.create_all(engine_of(app))
        ready = client_of(app).get("/readyz")
    with commands_on(database.url) as commands:
        checked = commands.run("check")

    assert (ready.status_code, ready.json["data"]) == (503, {"failed": ["session"]})
    assert checked.exit_code == 1
    (said,) = [line for line in checked.output.splitlines() if line.split()[1] == "session"]
    assert said.startswith(f"bad   session      server_encoding is {encoding}, not UTF8: ")
    assert MENDED_BY in said


def test_the_docs_make_databases_in_utf8() -> None:
    made = [
        line.strip()
        for page in (ROOT / "docs").glob("*.md")
        for line in page.read_text().splitlines()
        if line.startswith("    ") and " createdb " in line
    ]

    assert len(made) == 4
    assert [line for line in made if " --encoding UTF8 --template template0 " not in line] == []
