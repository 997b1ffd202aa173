"""``payments prove`` finds out what is broken; whatever becomes of it, it touches nobody's rows and leaves none."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from payments_app import clock
from payments_app.accounts.models import Role
from payments_app.database import Base
from payments_app.payments import audit
from payments_app.proof import cli, repository
from payments_app.proof.repository import FIRST_CONSULTATION
from tests.support.commands import Commands, commands_on
from tests.support.databases import ROOT, Database
from tests.support.fresh import engine_on, fresh_database
from tests.support.guards import DROP_INDEX
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import Service
from tests.support.waiting import PATIENCE_SECONDS, wait_until

ON_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True, scope="session")

# Few at once, and as fast as they are answered: what is tried here is the command, not the service.
SMALL = ("--clients", "4", "--rounds", "1", "--yes")
AT = ("--pace", "1000", "--url")

ATTACKS = {
    "storm",
    "twins",
    "key reuse",
    "confirms",
    "confirm against cancel",
    "one transaction",
    "refunds",
    "refund twins",
}


# What a line of JSON has.
OF_AN_ATTACK = {"attack", "promise", "held", "rounds", "requests", "broken"}
OF_ALL = {"held", "seed", "clients", "rounds", "requests", "sent_again", "rows_written_and_removed", "seconds"}


def started(database_url: str, *arguments: str) -> "subprocess.Popen[str]":
    """The command as an operator starts it, with rate limits as in production."""
    return subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "wsgi", "payments", "prove", *arguments],
        cwd=ROOT,
        env={**os.environ, "APP_ENV": "testing", "DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As at a terminal: who runs tests in the background of a script has Ctrl-C ignored, and their children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # nothing else is done there
    )


def finished(database_url: str, *arguments: str) -> tuple[int, str, str]:
    process = started(database_url, *arguments)
    told, said = process.communicate(timeout=5 * PATIENCE_SECONDS)
    return process.returncode, told, said


def everything(engine: Engine) -> dict[str, list[Any]]:
    """Every row of every table, but for the counters of ids."""
    tables = [table for table in Base.metadata.sorted_tables if table.name != "id_blocks"]
    with engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key))]
            for table in tables
        }


@pytest.fixture
def others(people: People, engine: Engine) -> Iterator[dict[str, list[Any]]]:
    """What real people have in the database; after the test, whatever it did, it is the same to the byte."""
    for consultation in (1, 2, 3):
        people.patient.pay(consultation, payment_method="gcash")
    payment_id = people.patient.pay(4).json["data"]["payment_id"]
    people.patient.confirm(payment_id)
    people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000})
    before = everything(engine)
    yield before
    assert everything(engine) == before


def scratch(rows: Rows) -> int:
    return rows.count("payments", "consultation_id >= :first", first=FIRST_CONSULTATION)


# A run that ends


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


@ON_POSTGRESQL
@pytest.mark.usefixtures("others", "audited")
def test_a_service_that_runs_is_proved_within_its_rate_limits(running: Service, database: Database) -> None:
    limits = {"RATELIMIT_ENABLED": "true", "RATELIMIT_PAYMENTS": "3 per minute"}
    with commands_on(database.url, **limits) as commands:
        result = commands.run("payments", "prove", *SMALL, *AT, running.url)

    assert result.exit_code == 0, result.output
    assert "at most 3 new payments of one user" in result.stderr
    assert "8 of 8 promises held" in result.stdout
    assert len(running.pids_that_served()) == 2


def test_a_live_services_socket_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = tmp_path / "live.sock"
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"--bind unix:{address} --pid {tmp_path / 'pid'}")
    with socket.socket(socket.AF_UNIX) as live, fresh_database("sqlite") as database:
        live.bind(str(address))
        live.listen()
        before = address.stat()

        status, told, said = finished(database.url, *SMALL)

        assert status == 0, (told, said)
        assert address.stat() == before
        assert [path.name for path in tmp_path.iterdir()] == ["live.sock"]


@ON_POSTGRESQL
@pytest.mark.usefixtures("others")
def test_a_service_on_another_database_is_not_attacked(running: Service, commands_elsewhere: Commands) -> None:
    told = commands_elsewhere.run("payments", "prove", *SMALL, *AT, running.url)

    assert told.exit_code == 2
    assert "The service could not be asked: GET /consultations/" in told.stderr
    assert "nothing is left of any run" in commands_elsewhere.ok("payments", "prove", "--clean-up")


def test_where_nobody_answers_it_says_why(commands_elsewhere: Commands) -> None:
    told = commands_elsewhere.run("payments", "prove", *SMALL, *AT, "http://127.0.0.1:9")

    assert told.exit_code == 2
    assert "http://127.0.0.1:9 does not answer: " in told.stderr
    assert "refused" in told.stderr


@pytest.mark.parametrize("url", ["", "pay.clinic.example", "127.0.0.1:8000", "ftp://host", "http://", "http://[::1"])
def test_what_is_no_address_is_not_asked(url: str, commands_elsewhere: Commands) -> None:
    assert "--url must be the address" in commands_elsewhere.refused("payments", "prove", *SMALL, *AT, url)


@pytest.fixture
def commands_elsewhere() -> Iterator[Commands]:
    with fresh_database("sqlite") as database, commands_on(database.url) as commands:
        yield commands


# What is broken


def test_an_index_that_was_dropped_is_found_before_anything_is_written(commands_elsewhere: Commands) -> None:
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
    assert "index: uq_payments_active_consultation is missing: nothing stops a second payment" in told.stdout
    assert "0 of 1 promises held" in told.stdout


def test_a_key_that_is_not_unique_any_more_is_found_by_what_it_does() -> None:
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE idempotency_keys DROP CONSTRAINT pk_idempotency_keys"))

        status, told, said = finished(database.url, *SMALL)

        assert status == 1, (told, said)
        assert re.search(r"^BROKEN +key reuse +one key for two consultations makes one payment", told, re.MULTILINE)
        assert "one key made several payments: consultation 9" in told
        assert not any(everything(engine).values())


# A run that does not


@ON_POSTGRESQL
@pytest.mark.usefixtures("others", "audited")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_an_interrupted_run_removes_what_it_wrote(sent: signal.Signals, database: Database, rows: Rows) -> None:
    process = started(database.url, "--clients", "4", "--rounds", "1000", "--yes")
    wait_until(lambda: scratch(rows) > 3)

    process.send_signal(sent)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 2
    assert said.endswith(f"Error: Stopped by {sent.name}; everything that was written is removed.\n")


@ON_POSTGRESQL
@pytest.mark.usefixtures("others", "audited")
def test_what_a_killed_run_left_is_removed_by_the_next_one(database: Database, app: Flask, rows: Rows) -> None:
    process = started(database.url, "--clients", "4", "--rounds", "1000", "--yes")
    wait_until(lambda: scratch(rows) > 3)
    (gunicorn,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
    wait_until(lambda: not is_running(gunicorn))
    with app.app_context():
        assert [found for check in audit.CHECKS for found in audit.find_offenders(check)] == []

    # As long as it could still be at work, another one is asked whether it is.
    assert finished(database.url, *SMALL)[0] == 2
    long_ago = rows.moment(clock.now() - timedelta(minutes=31))
    rows.execute("UPDATE users SET created_at = :at WHERE email LIKE '%@proof.invalid'", at=long_ago)
    status, _, said = finished(database.url, *SMALL)

    assert status == 0, said
    assert re.search(
        r"^removes .* first [0-9]+ users and [0-9]+ payments of a run that was killed$", said, re.MULTILINE
    )
    assert re.search(r"^Removed [0-9]+ rows that a run which was killed had left", said, re.MULTILINE)


def is_running(pid: str) -> bool:
    """Not one that has ended, and that nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.usefixtures("others")
def test_what_a_killed_run_left_stays_where_nobody_agrees(database: Database, app: Flask, rows: Rows) -> None:
    with app.app_context():
        repository.add_user("left", Role.PATIENT, consultations=[FIRST_CONSULTATION], currency="PHP")
    long_ago = rows.moment(clock.now() - timedelta(minutes=31))
    rows.execute("UPDATE users SET created_at = :at WHERE email LIKE '%@proof.invalid'", at=long_ago)

    with commands_on(database.url) as commands:
        told = commands.run("payments", "prove", answer="n\n")

        assert "and first 1 users and 0 payments of a run that was killed" in told.stderr
        assert told.stderr.endswith("nothing was written\n")
        assert commands.ok("payments", "prove", "--clean-up", "--yes") == "2 rows removed\n"


@pytest.mark.usefixtures("others")
def test_what_is_left_is_removed_when_asked_for(database: Database, app: Flask) -> None:
    with app.app_context():
        repository.add_user("left", Role.PATIENT, consultations=[FIRST_CONSULTATION], currency="PHP")
    with commands_on(database.url) as commands:
        assert commands.ok("payments", "prove", "--clean-up", answer="y\n") == "2 rows removed\n"


# A run that does not begin


@pytest.mark.usefixtures("others")
def test_nothing_is_written_unless_the_plan_is_agreed_to(database: Database) -> None:
    with commands_on(database.url) as commands:
        told = commands.run("payments", "prove", answer="n\n")

        unasked = commands.run("payments", "prove")

    assert (told.exit_code, told.stdout) == (0, "")
    assert told.stderr.endswith("Go on? [y/N]: n\nnothing was written\n")
    assert (unasked.exit_code, unasked.stdout) == (2, "")


def test_a_database_that_is_not_migrated_or_not_there_is_no_verdict(tmp_path: Path) -> None:
    with commands_on(f"sqlite:///{tmp_path / 'empty.db'}") as commands:
        assert "migrations: at migration none" in commands.refused("payments", "prove", *SMALL)
    with commands_on("postgresql+psycopg://nobody@127.0.0.1:1/none") as commands:
        assert commands.refused("payments", "prove", *SMALL).startswith("Error: database: ")


def test_ctrl_c_before_anything_is_begun_is_no_verdict(
    commands_elsewhere: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "find_faults", interrupted)

    assert "no row of this run is there" in commands_elsewhere.refused("payments", "prove", *SMALL)


def test_a_limit_that_leaves_no_two_to_race_proves_nothing_and_says_so() -> None:
    with fresh_database("sqlite") as database:
        limits = {"RATELIMIT_ENABLED": "true", "RATELIMIT_PAYMENTS": "1 per second"}
        with commands_on(database.url, **limits) as commands:
            refusal = commands.refused("payments", "prove", *SMALL)

    assert refusal.startswith("Error: RATELIMIT_PAYMENTS allows a user 1 per second")


def test_somebody_elses_consultation_within_the_range_stops_it(people: People, database: Database) -> None:
    people.admin.put(f"/consultations/{FIRST_CONSULTATION + 7}", {"patient_email": people.patient.email})

    with commands_on(database.url) as commands:
        refusal = commands.refused("payments", "prove", "--yes")

    assert refusal.startswith(f"Error: Consultation {FIRST_CONSULTATION + 7} is not a proof's")


def test_nobody_elses_workers_are_killed(commands_elsewhere: Commands) -> None:
    refusal = commands_elsewhere.refused("payments", "prove", "--kill-workers", "--url", "http://127.0.0.1:9")

    assert "without --url" in refusal
