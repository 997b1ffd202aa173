"""Commands on the demo, as ``make run`` leaves it: ``./payments`` from any folder, and what a wrong start says."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from flask.cli import AppGroup

from tests.support.commands import commands_on
from tests.support.databases import ROOT
from tests.support.fresh_databases import fresh_database
from tests.support.service import free_port

# Says what it was started with, in place of the project's own flask.
STAND_IN = """#!/bin/sh
echo "${APP_ENV:-}|${DATABASE_URL:-}|$*"
echo "links begin with ${PUBLIC_URL:-}, webhooks to this machine: ${WEBHOOK_ALLOW_PRIVATE:-}" >&2
"""


# Groups of commands that Flask-Migrate and flask-smorest bring along.
LIBRARIES = ("db", "openapi")


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The wrapper in a project of its own, after ``make run``."""
    folder = tmp_path / "a project"
    flask = folder / ".venv/bin/flask"
    flask.parent.mkdir(parents=True)
    flask.write_text(STAND_IN)
    flask.chmod(0o755)
    (folder / "instance").mkdir()
    (folder / "instance/demo.db").touch()
    shutil.copy(ROOT / "payments", folder)
    return folder


def test_from_any_folder_a_command_finds_the_demo(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "instance").mkdir(parents=True)
    for name in ("payments", "wsgi.py", "config.py"):
        shutil.copy(ROOT / name, project)
    shutil.copytree(ROOT / "payments_app", project / "payments_app", ignore=shutil.ignore_patterns("__pycache__"))
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/flask").symlink_to(Path(sys.executable).with_name("flask"))
    with fresh_database("sqlite") as database:
        shutil.copy(database.url.removeprefix("sqlite:///"), project / "instance/demo.db")
    (tmp_path / "payments").symlink_to(project / "payments")

    listed = run("../payments", "refunds", "list", cwd=project)

    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "no refunds\n", "")


def test_without_settings_it_is_the_demos_database(project: Path) -> None:
    started = run(project / "payments", "refunds", "create", "41", "--reason", "no show", cwd=project.parent)

    assert started.stdout == f"development|sqlite:///demo.db|--app {project}/wsgi refunds create 41 --reason no show\n"


@pytest.mark.parametrize("setting", [{"APP_ENV": "production"}, {"DATABASE_URL": "postgresql+psycopg://db/clinic"}])
def test_settings_of_the_environment_win(project: Path, setting: dict[str, str]) -> None:
    started = run(project / "payments", "check", cwd=project.parent, **setting)

    assert started.stdout.startswith(f"{setting.get('APP_ENV', '')}|{setting.get('DATABASE_URL', '')}|")


@pytest.mark.parametrize("line", ["APP_ENV=production", "export DATABASE_URL=sqlite:////srv/clinic.db"])
def test_settings_of_the_env_file_win(project: Path, line: str) -> None:
    (project / ".env").write_text(f"# mine\n{line}\n")

    assert run(project / "payments", "check", cwd=project.parent).stdout.startswith("||")


def test_an_env_file_with_other_settings_leaves_the_demo(project: Path) -> None:
    (project / ".env").write_text("#DATABASE_URL=sqlite:////srv/clinic.db\nPAYMENT_CURRENCY=IDR\n")

    assert "|sqlite:///demo.db|" in run(project / "payments", "check", cwd=project.parent).stdout


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"PUBLIC_URL": "https://pay.example.org"}, "https://pay.example.org"),
        ({"DATABASE_URL": "postgresql+psycopg://db/clinic"}, ""),
    ],
    ids=str,
)
def test_a_payment_link_of_the_demo_leads_to_make_run(project: Path, settings: dict[str, str], address: str) -> None:
    started = run(project / "payments", "links", "create", "77", cwd=project.parent, **settings)

    assert started.stderr.startswith(f"links begin with {address}, ")
    (project / ".env").write_text("PUBLIC_URL=https://pay.example.org\n")
    with_file = run(project / "payments", "links", "create", "77", cwd=project.parent)
    assert with_file.stderr.startswith("links begin with , ")  # the service reads it itself


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [({}, "1"), ({"WEBHOOK_ALLOW_PRIVATE": "0"}, "0"), ({"DATABASE_URL": "postgresql+psycopg://db/clinic"}, "")],
    ids=str,
)
def test_webhooks_of_the_demo_may_go_to_this_machine(project: Path, settings: dict[str, str], allowed: str) -> None:
    command = (project / "payments", "webhooks", "create", "http://127.0.0.1:9000/")

    assert run(*command, cwd=project, **settings).stderr.endswith(f"webhooks to this machine: {allowed}\n")
    (project / ".env").write_text("WEBHOOK_ALLOW_PRIVATE=0\n")
    assert run(*command, cwd=project).stderr.endswith("webhooks to this machine: \n")  # the service reads it itself


@pytest.mark.parametrize("missing", ["instance/demo.db", ".venv/bin/flask"])
def test_before_make_run_it_says_so(project: Path, missing: str) -> None:
    (project / missing).unlink()

    refused = run(project / "payments", "check", cwd=project.parent)

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "run make run there first" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_python_without_the_packages_says_what_to_use_instead() -> None:
    stray = run(sys.executable, "-S", "-c", "import wsgi", cwd=ROOT)

    assert (stray.returncode, stray.stdout) == (2, "")
    assert "use ./payments or .venv/bin/flask" in stray.stderr
    assert stray.stderr.count("\n") == 1


def test_a_command_on_a_database_without_tables_says_where_to_look(tmp_path: Path) -> None:
    with commands_on(f"sqlite:///{tmp_path / 'empty.db'}") as commands:
        refused = commands.refused("refunds", "list")

    assert "`check` says why" in refused
    assert "./payments" in refused


def test_the_page_of_commands_lists_every_command_and_no_other(tmp_path: Path) -> None:
    with commands_on(f"sqlite:///{tmp_path / 'empty.db'}") as commands:
        known = {
            f"{group.name} {name}"
            for group in commands.app.cli.commands.values()
            if isinstance(group, AppGroup) and group.name not in LIBRARIES
            for name, command in group.commands.items()
            if not command.hidden
        }
    rows = re.findall(r"^\| (`.*?`) \|", (ROOT / "docs/commands.md").read_text(), flags=re.MULTILINE)
    listed = {" ".join(words) for row in rows for words in re.findall(r"`([a-z]+) ([a-z-]+)", row)}

    assert listed == known | {"db upgrade"}


@pytest.mark.parametrize("name", ["PORT", "SITE_PORT"])
def test_make_run_on_a_taken_port_says_so_and_shows_no_banner(name: str) -> None:
    ports = {"PORT": free_port(), "SITE_PORT": free_port()}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[name] = taken.getsockname()[1]
        refused = make_run(ports)

    assert refused.returncode != 0
    assert refused.stdout == ""
    assert refused.stderr.startswith(f"Port {ports[name]} of 127.0.0.1 is not free. Choose another one: {name}=")


def test_make_run_needs_two_ports() -> None:
    refused = make_run({"PORT": 9000, "SITE_PORT": 9000})

    assert refused.returncode != 0
    assert refused.stdout == ""
    assert refused.stderr.startswith("PORT and SITE_PORT are both 9000.")


def make_run(ports: dict[str, int]) -> subprocess.CompletedProcess[str]:
    return run("make", "-o", ".venv/.installed", "run", *(f"{name}={port}" for name, port in ports.items()), cwd=ROOT)
