"""``flask payments prove`` as an operator starts it, and what it must leave alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Engine

from payments_app.proof.repository import FIRST_CONSULTATION
from tests.support.commands import commands_on
from tests.support.databases import ROOT, TABLES
from tests.support.rows import Rows
from tests.support.waiting import PATIENCE_SECONDS

# Few at once, and as fast as they are answered: what is tried here is the command, not the service.
SMALL = ("--clients", "4", "--rounds", "1", "--yes")
AT = ("--pace", "1000", "--url")


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


def finished_here(database_url: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """The same in the test's own process; what it attacks is a gunicorn, and reads the environment."""
    monkeypatch.setenv("APP_ENV", "testing")
    monkeypatch.setenv("DATABASE_URL", database_url)
    with commands_on(database_url) as commands:
        return commands.run("payments", "prove", *arguments)


def finished(database_url: str, *arguments: str) -> tuple[int, str, str]:
    process = started(database_url, *arguments)
    told, said = process.communicate(timeout=5 * PATIENCE_SECONDS)
    return process.returncode, told, said


def everything(engine: Engine) -> dict[str, list[Any]]:
    """Every row of every table, but for the counters of ids."""
    with engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key))]
            for table in TABLES
        }


def scratch(rows: Rows) -> int:
    return rows.count("payments", "consultation_id >= :first", first=FIRST_CONSULTATION)


def is_running(pid: str) -> bool:
    """Not one that has ended, and that nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False
