"""A run of ``payments prove`` that comes to its end finds out what is broken, and touches nobody's rows."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.prove.command.proving import AT, SMALL, everything, finished, finished_here
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.dialects import long_on_sqlite, on_postgresql
from tests.support.fresh_databases import engine_on, fresh_database
from tests.support.guards import DROP_INDEX, DROP_KEYS
from tests.support.service import Service

ATTACKS = {
    "storm",
    "twins",
    "key reuse",
    "confirms",
    "confirm against cancel",
    "one transaction",
    "refunds",
    "refund twins",
    "disputes",
    "checkouts",
    "links",
}

# What a line of JSON has.
OF_AN_ATTACK = {"attack", "promise", "held", "rounds", "requests", "broken"}
OF_ALL = {"held", "seed", "clients", "rounds", "requests", "sent_again", "rows_written_and_removed", "seconds"}


# A run on SQLite is in the short form too: beside a live service's socket.
@long_on_sqlite
@pytest.mark.usefixtures("others", "audited")
def test_a_run_proves_every_promise_with_workers_killed_and_leaves_nothing(database: Database) -> None:
    status, told, said = finished(database.url, *SMALL, "--seed", "7", "--kill-workers", "--json")

    *verdicts, total = map(json.loads, told.splitlines())
    assert status == 0, (told, said)
    assert {verdict["attack"] for verdict in verdicts} == ATTACKS | {"killed workers"}
    for verdict in verdicts:
        assert verdict.keys() == OF_AN_ATTACK
        assert (verdict["held"], verdict["rounds"], verdict["broken"]) == (True, 1, [])
        assert verdict["requests"] >= 4
    assert total.keys() == OF_ALL
    assert (total["held"], total["seed"], total["clients"], total["rounds"]) == (True, 7, 4, 1)
    assert total["requests"] == sum(verdict["requests"] for verdict in verdicts)
    assert total["rows_written_and_removed"] > 100
    for promised in ("database", "sends", "writes", "removes", "money"):
        assert re.search(rf"^{promised} ", said, re.MULTILINE)


@pytest.fixture(scope="module")
def running(database: Database) -> Iterator[Service]:
    with Service.started(database.url, RATELIMIT_ENABLED="true", RATELIMIT_PAYMENTS="3 per minute") as service:
        yield service


@on_postgresql
@pytest.mark.usefixtures("others", "audited")
def test_a_service_that_runs_is_proved_within_its_rate_limits(running: Service, database: Database) -> None:
    limits = {"RATELIMIT_ENABLED": "true", "RATELIMIT_PAYMENTS": "3 per minute"}
    with commands_on(database.url, **limits) as commands:
        result = commands.run("payments", "prove", *SMALL, *AT, running.url)

    assert result.exit_code == 0, result.output
    assert "at most 3 new payments of one user" in result.stderr
    assert "11 of 11 promises held" in result.stdout
    assert len(running.pids_that_served()) == 2


def test_a_live_services_socket_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = tmp_path / "live.sock"
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"--bind unix:{address} --pid {tmp_path / 'pid'}")
    with socket.socket(socket.AF_UNIX) as live, fresh_database("sqlite") as database:
        live.bind(str(address))
        live.listen()
        before = address.stat()

        run = finished_here(database.url, monkeypatch, *SMALL)

        assert run.exit_code == 0, run.output
        assert address.stat() == before
        assert [path.name for path in tmp_path.iterdir()] == ["live.sock"]


@on_postgresql
@pytest.mark.usefixtures("others")
def test_a_service_on_another_database_is_not_attacked(running: Service, commands_elsewhere: CommandRunner) -> None:
    told = commands_elsewhere.run("payments", "prove", *SMALL, *AT, running.url)

    assert told.exit_code == 2
    assert "The service could not be attacked: GET /consultations/" in told.stderr
    assert "no rows to remove" in commands_elsewhere.ok("payments", "prove", "--clean-up")


# What is broken


def test_an_index_that_was_dropped_is_found_before_anything_is_written(commands_elsewhere: CommandRunner) -> None:
    with commands_elsewhere.app.app_context():
        engine = commands_elsewhere.app.extensions["sqlalchemy"].engine
    with engine.begin() as connection:
        connection.execute(text(DROP_INDEX))

    told = commands_elsewhere.run("payments", "prove", *SMALL)
    verdict, total = map(json.loads, commands_elsewhere.run("payments", "prove", *SMALL, "--json").stdout.splitlines())

    assert (verdict.keys(), total.keys()) == (OF_AN_ATTACK, OF_ALL)
    assert (verdict["attack"], verdict["held"], total["held"]) == ("none", False, False)
    assert told.exit_code == 1
    assert "BROKEN" in told.stdout
    assert "index: uq_payments_active_consultation is missing: a second payment would be possible" in told.stdout
    assert "0 of 1 promises held" in told.stdout


def test_a_key_that_is_not_unique_any_more_is_found_by_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        with engine.begin() as connection:
            connection.execute(text(DROP_KEYS))

        run = finished_here(database.url, monkeypatch, *SMALL)

        assert run.exit_code == 1, run.output
        assert re.search(
            r"^BROKEN +key reuse +one key for two consultations makes one payment", run.stdout, re.MULTILINE
        )
        assert "one key made several payments: consultation 9" in run.stdout
        assert not any(everything(engine).values())
