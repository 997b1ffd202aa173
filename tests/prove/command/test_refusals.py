"""Where ``payments prove`` does not begin: nothing is written, it says why, and that is no verdict."""

from pathlib import Path

import pytest

from payments_app.proof import cli
from payments_app.proof.repository import FIRST_CONSULTATION
from tests.prove.command.proving import AT, SMALL
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.fresh_databases import fresh_database
from tests.support.people import People


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
    commands_elsewhere: CommandRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_checks", interrupted)

    assert "no row of this run is left" in commands_elsewhere.refused("payments", "prove", *SMALL)


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

    assert refusal.startswith(f"Error: Consultation {FIRST_CONSULTATION + 7} is not of this command")


def test_nobody_elses_workers_are_killed(commands_elsewhere: CommandRunner) -> None:
    refusal = commands_elsewhere.refused("payments", "prove", "--kill-workers", "--url", "http://127.0.0.1:9")

    assert "without --url" in refusal


def test_where_nobody_answers_it_says_why(commands_elsewhere: CommandRunner) -> None:
    told = commands_elsewhere.run("payments", "prove", *SMALL, *AT, "http://127.0.0.1:9")

    assert told.exit_code == 2
    assert "http://127.0.0.1:9 does not respond: " in told.stderr
    assert "refused" in told.stderr


@pytest.mark.parametrize("url", ["", "pay.clinic.example", "127.0.0.1:8000", "ftp://host", "http://", "http://[::1"])
def test_what_is_no_address_is_not_asked(url: str, commands_elsewhere: CommandRunner) -> None:
    assert "--url must be the address" in commands_elsewhere.refused("payments", "prove", *SMALL, *AT, url)
