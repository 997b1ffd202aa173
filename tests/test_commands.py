"""Every command, whatever goes wrong: one plain line on standard error, and no traceback."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import make_url, text

from payments_app.commands import DAY, ID
from tests.support.apps import app_with
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import ROOT, Database
from tests.support.fresh_databases import engine_on, fresh_database
from tests.support.people import People
from tests.support.waiting import PATIENCE_SECONDS

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:9/nothing"
VERDICTS = {("check",)}  # what is wrong is what it is there to say, on standard output
WITHOUT_DATABASE = {("gateways", "check"), ("payments", "reconcile")}  # and no gateway here has an API
SAY_WHAT_THEY_DO = {("payments", "audit")}  # on standard error, before they do it
NOT_UTF8 = os.fsdecode(b"Jo\xff")


def all_commands(app: Flask) -> dict[tuple[str, ...], list[str]]:
    """Each command of ours, with as much as it does not run without, and such that it does not ask."""
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in app.cli.commands.items():
        if isinstance(command, click.Group):
            found.update({(name, below): each for below, each in command.commands.items()})
        else:
            found[name,] = command
    return {
        names: _arguments(command)
        for names, command in found.items()
        # Not those that Flask's extensions bring.
        if command.callback is not None and command.callback.__module__.startswith("payments_app.")
    }


def _arguments(command: click.Command) -> list[str]:
    arguments = []
    for each in command.params:
        value = "1" if each.type is ID else "https://clinic.example" if each.name == "url" else "joy@clinic.example"
        if isinstance(each.type, click.Choice):
            value = each.type.choices[0]
        if each.type is DAY:
            value = "2026-01-31"
        if each.name in ("yes", "password_stdin"):
            arguments += each.opts
        elif each.required:
            arguments += [value] if isinstance(each, click.Argument) else [each.opts[0], value]
    return arguments


def run_all(commands: CommandRunner, *more: str) -> Iterator[tuple[tuple[str, ...], Result]]:
    for names, arguments in all_commands(commands.app).items():
        yield names, commands.run(*names, *arguments, *more, answer="a long enough password\n")


def assert_plain(names: tuple[str, ...], result: Result) -> None:
    assert isinstance(result.exception, SystemExit), (names, result.exception)
    if names in VERDICTS:
        assert result.exit_code == 1, (names, result.output)
        return
    *before, line = result.stderr.splitlines()
    assert (result.exit_code, line.startswith("Error: ")) == (2, True), (names, result.output)
    assert before == [] or names in SAY_WHAT_THEY_DO, (names, result.output)
    assert line.isprintable(), (names, line)


def test_there_are_commands_to_try() -> None:
    with app_with(NOWHERE) as app:
        found = all_commands(app)

    assert len(found) >= 17
    assert found["refunds", "create"] == ["1", "--yes"]
    assert found["check",] == []


def test_a_database_that_is_away() -> None:
    with commands_on(NOWHERE) as commands:
        for names, result in run_all(commands):
            if names in WITHOUT_DATABASE:
                continue
            assert_plain(names, result)
            if names not in {("locks", "list"), ("check",), ("payments", "prove")}:
                assert "port 9 failed: Connection refused" in result.stderr, names


def test_bytes_that_are_no_utf8() -> None:
    with commands_on(NOWHERE) as commands:
        for names, arguments in all_commands(commands.app).items():
            result = commands.run(*names, *arguments, NOT_UTF8)
            assert result.exit_code == 2, names
            assert result.stderr == "Error: Jo\\udcff is not UTF-8.\n", names


def test_options_that_are_none_in_one_line_too() -> None:
    with commands_on(NOWHERE) as commands:
        for names, result in run_all(commands, "--no-such\x1b[2J"):
            assert (result.exit_code, result.stderr.count("\n")) == (2, 1), (names, result.output)
            assert "\x1b" not in result.output


@contextmanager
def without_rights(databases: Callable[[str], Database]) -> Iterator[str]:
    """The address of a database in which its user may do nothing."""
    postgresql = databases("postgresql")
    role = f"stranger_{os.getpid()}"
    with engine_on(postgresql.url) as engine, engine.begin() as connection:
        connection.execute(text(f'CREATE ROLE "{role}"'))
    try:
        yield make_url(f"{postgresql.url}&options=-c role={role}").render_as_string(hide_password=False)
    finally:
        with engine_on(postgresql.url) as engine, engine.begin() as connection:
            connection.execute(text(f'DROP ROLE "{role}"'))


def test_a_user_without_rights_in_the_database(databases: Callable[[str], Database]) -> None:
    with without_rights(databases) as url, commands_on(url) as commands:
        for names, result in run_all(commands):
            if names in WITHOUT_DATABASE:
                continue
            assert_plain(names, result)
            if names[0] not in ("locks", "check") and names != ("payments", "prove"):
                assert "InsufficientPrivilege 42501: permission denied for table" in result.stderr, names


def test_an_error_that_nobody_thought_of_is_in_the_log_for_who_wants_it(caplog: pytest.LogCaptureFixture) -> None:
    with fresh_database("postgresql") as database, engine_on(database.url) as engine:
        with app_with(database.url) as app:
            People(app)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE users ADD CONSTRAINT odd CHECK (disabled_at IS NULL)"))
        for level, told in (("INFO", 0), ("DEBUG", 1)):
            caplog.clear()
            with commands_on(database.url, LOG_LEVEL=level) as commands:
                line = commands.refused("users", "disable", "patient@example.com")
            assert "CheckViolation 23514" in line
            assert "LOG_LEVEL=DEBUG" in line
            assert len([record for record in caplog.records if record.exc_info]) == told, level


def test_what_is_too_long_for_a_column(databases: Callable[[str], Database]) -> None:
    with commands_on(databases("postgresql").url) as commands:
        refused = commands.refused("consultations", "put", 1, "--patient", f"{'a' * 250}@b.example")
        assert "No such patient" in refused
        created = ("users", "create", "long@clinic.example", "--name", "N" * 300, "--password-stdin")
        assert commands.refused(*created, answer="a long enough password\n").startswith("Error: ")


def test_nobody_there_to_answer(people: People, database: Database) -> None:
    payment_id = people.patient.pay(1).json["data"]["payment_id"]
    people.patient.confirm(payment_id)
    with commands_on(database.url) as commands:
        result = commands.run("refunds", "create", payment_id)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == "Error: The question got no answer: standard input is closed."


# As processes


def started(database: Database, *command: str, **more: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "wsgi", *command],
        cwd=ROOT,
        env={**os.environ, "APP_ENV": "testing", "DATABASE_URL": database.url},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **{"stdout": subprocess.PIPE, **more},
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, told = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, told


def read_until(words: str, stream: IO[str]) -> str:
    told = ""
    while not told.endswith(words):
        letter = stream.read(1)
        assert letter, told
        told += letter
    return told


def test_ctrl_c_in_the_middle_of_the_work_and_of_a_question(databases: Callable[[str], Database]) -> None:
    sqlite = databases("sqlite")
    for command, shown in (
        (("demo", "seed", "--consultations", "9000000000"), "Consultations"),
        (("refunds", "resume", "--send-again", "1"), "[y/N]: "),
    ):
        process = started(sqlite, *command)
        assert process.stderr is not None
        read_until(shown, process.stderr)
        process.send_signal(signal.SIGINT)
        status, told = ended(process)

        assert status == 130, told
        assert told.splitlines()[-1] == "Stopped."
        assert "Traceback" not in told


def test_a_pipe_that_nobody_reads_ends_it_without_a_word(databases: Callable[[str], Database]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = started(databases("sqlite"), "check", stdout=writer)
    finally:
        os.close(writer)

    assert ended(process) == (141, "")


def test_a_full_disk_under_what_is_printed(databases: Callable[[str], Database]) -> None:
    with Path("/dev/full").open("w") as full:
        status, told = ended(started(databases("sqlite"), "check", stdout=full))

    assert (status, told.count("\n")) == (2, 1)
    assert "No space left on device" in told


def test_what_cannot_even_be_loaded_is_one_line(databases: Callable[[str], Database], tmp_path: Path) -> None:
    (tmp_path / "structlog.py").write_text(r"open('/proc/no\x1b[2Jsuch')")  # instead of the real one
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "APP_ENV": "testing"}
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "payments", "list"]
    for level, lines in (("INFO", 1), ("DEBUG", None)):
        result = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, "DATABASE_URL": databases("sqlite").url, "LOG_LEVEL": level},
            capture_output=True,
            text=True,
            check=False,
        )
        if lines:
            assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
            assert result.stderr.startswith("refusing to start: FileNotFoundError: ")
            assert "\x1b" not in result.stderr
        else:
            assert "Traceback" in result.stderr


def test_migrations_that_cannot_run_are_one_line() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"],
        cwd=ROOT,
        env={**os.environ, "APP_ENV": "testing", "DATABASE_URL": NOWHERE},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert "Connection refused" in result.stderr


def test_a_file_of_settings_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "config.py", tmp_path)
    (tmp_path / ".env").write_bytes(b"SECRET_KEY=\xff\n")
    spec = importlib.util.spec_from_file_location("config_elsewhere", tmp_path / "config.py")
    assert spec is not None
    assert spec.loader is not None
    elsewhere = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "config_elsewhere", elsewhere)
    monkeypatch.setenv("APP_ENV", "testing")
    spec.loader.exec_module(elsewhere)

    with pytest.raises(elsewhere.ConfigError, match=r"\.env cannot be read: 'utf-8' codec"):
        elsewhere.read_env_file()
