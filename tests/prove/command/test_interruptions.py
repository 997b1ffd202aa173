"""Whatever becomes of a run of ``payments prove``, none of its rows stay, and what it had found is told."""

import json
import os
import re
import signal
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

from payments_app import clock
from payments_app.accounts.models import Role
from payments_app.payments import audit
from payments_app.proof import repository, runner
from payments_app.proof.client import Client
from payments_app.proof.repository import FIRST_CONSULTATION
from payments_app.proof.runner import ProofPlan, Report
from payments_app.proof.scenario import LoadProfile, WrongTarget
from tests.prove.command.proving import SMALL, everything, finished_here, is_running, scratch, started
from tests.support.apps import app_with
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.dialects import on_postgresql
from tests.support.fresh_databases import engine_on, fresh_database
from tests.support.guards import DROP_KEYS
from tests.support.rows import Rows
from tests.support.service import Service
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@on_postgresql
@pytest.mark.usefixtures("others", "audited")
@pytest.mark.long  # in the short form a run of the test's own process is stopped by SIGTERM, below
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_an_interrupted_run_removes_what_it_wrote(sent: signal.Signals, database: Database, rows: Rows) -> None:
    process = started(database.url, "--clients", "4", "--rounds", "1000", "--yes")
    wait_until(lambda: scratch(rows) > 3)

    process.send_signal(sent)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 2
    assert said.endswith(f"Error: Stopped by {sent.name}; all written rows were removed.\n")


@on_postgresql
@pytest.mark.usefixtures("others", "audited")
def test_what_a_killed_run_left_is_removed_by_the_next_one(
    database: Database, app: Flask, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = started(database.url, "--clients", "4", "--rounds", "1000", "--yes")
    wait_until(lambda: scratch(rows) > 3)
    (gunicorn,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
    wait_until(lambda: not is_running(gunicorn))
    with app.app_context():
        assert [found for check in audit.CHECKS for found in audit.find_violations(check)] == []

    # As long as it could still be at work, another one is asked whether it is.
    assert finished_here(database.url, monkeypatch, *SMALL).exit_code == 2
    long_ago = rows.moment(clock.now() - timedelta(minutes=31))
    rows.execute("UPDATE users SET created_at = :at WHERE email LIKE '%@proof.invalid'", at=long_ago)
    run = finished_here(database.url, monkeypatch, *SMALL)

    assert run.exit_code == 0, run.output
    assert re.search(
        r"^removes .* first what a run that was killed has left: users [0-9]+, payments [0-9]+$",
        run.stderr,
        re.MULTILINE,
    )
    assert re.search(r"^Removed [0-9]+ rows that a killed run had left", run.stderr, re.MULTILINE)


@pytest.mark.usefixtures("others")
def test_what_a_killed_run_left_stays_where_nobody_agrees(database: Database, app: Flask, rows: Rows) -> None:
    with app.app_context():
        repository.add_user("left", Role.PATIENT, consultations=[FIRST_CONSULTATION], currency="PHP")
    long_ago = rows.moment(clock.now() - timedelta(minutes=31))
    rows.execute("UPDATE users SET created_at = :at WHERE email LIKE '%@proof.invalid'", at=long_ago)

    with commands_on(database.url) as commands:
        told = commands.run("payments", "prove", answer="n\n")

        assert "and first what a run that was killed has left: users 1, payments 0" in told.stderr
        assert told.stderr.endswith("nothing was written\n")
        assert commands.ok("payments", "prove", "--clean-up", "--yes") == "2 rows removed\n"


@pytest.mark.usefixtures("others")
def test_what_is_left_is_removed_when_asked_for(database: Database, app: Flask) -> None:
    with app.app_context():
        repository.add_user("left", Role.PATIENT, consultations=[FIRST_CONSULTATION], currency="PHP")
    with commands_on(database.url) as commands:
        assert commands.ok("payments", "prove", "--clean-up", answer="y\n") == "2 rows removed\n"
        assert json.loads(commands.ok("payments", "prove", "--clean-up", "--json")) == {"rows_removed": 0}


def test_a_service_that_dies_meanwhile_breaks_no_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    # A client waits a minute and a half for each of its answers; here it is known that none comes.
    monkeypatch.setattr(runner, "Client", partial(Client, patience_seconds=0))
    with fresh_database("sqlite") as database, Service.started(database.url) as service, app_with(database.url) as app:
        plan = ProofPlan(LoadProfile(4, share=4), rounds=3, seed=1, url=service.url, pace=1000, kill_workers=False)
        report = Report.blank(plan)

        def kill() -> None:
            for pid in (service.process.pid, *service.workers()):
                os.kill(pid, signal.SIGKILL)

        with app.app_context(), pytest.raises(WrongTarget, match="no longer responds"):
            runner.prove(plan, report, on_progress=kill)

        assert report.held
        assert sum(requests > 0 for requests in report.requests.values()) == 1
        with engine_on(database.url) as engine:
            assert not any(everything(engine).values())


def test_what_a_run_had_found_is_told_when_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    prove = runner.prove

    def prove_until_something_is_found(plan: ProofPlan, report: Report, on_progress: Callable[[], None]) -> None:
        def stop() -> None:
            on_progress()
            if not report.held:
                # Not SIGINT, which whoever runs tests in the background of a script has ignored.
                signal.raise_signal(signal.SIGTERM)

        prove(plan, report, stop)

    monkeypatch.setattr(runner, "prove", prove_until_something_is_found)
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        with engine.begin() as connection:
            connection.execute(text(DROP_KEYS))

        told = finished_here(database.url, monkeypatch, *SMALL)

        assert told.exit_code == 2
        assert re.search(r"^BROKEN +key reuse: one key made several payments: ", told.stderr, re.MULTILINE)
        assert "Stopped by SIGTERM; all written rows were removed." in told.stderr
        assert not any(everything(engine).values())
