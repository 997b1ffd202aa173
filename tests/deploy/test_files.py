"""The files that an operator copies agree with one another, with the code and with what they are for."""

import itertools
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from payments_app import engines
from tests.support.apps import app_with
from tests.support.databases import ROOT
from tests.support.front import SITE

UNITS = ROOT / "deploy" / "systemd"


@pytest.fixture(scope="module")
def gunicorn() -> dict[str, Any]:
    """The settings of gunicorn.conf.py."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # as it was, afterwards
        settings = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    return settings


def nginx_seconds(directive: str) -> int:
    (seconds,) = re.findall(rf"^\s*{directive} (\d+)s;", SITE.read_text(), flags=re.MULTILINE)
    return int(seconds)


def test_every_step_of_the_ladder_gives_up_before_the_one_that_waits_for_it(gunicorn: dict[str, Any]) -> None:
    settings = Settings.from_environment({})
    attempts_of_a_gateway_call = 3
    guide = (ROOT / "docs" / "deployment.md").read_text()
    (client,) = re.findall(r"^\| the client \| (\d+) s", guide, flags=re.MULTILINE)
    ladder = [
        engines.LOCK_TIMEOUT_MS / 1000,
        engines.STATEMENT_TIMEOUT_MS / 1000,
        settings.gateway_timeout_seconds,
        settings.gateway_timeout_seconds * attempts_of_a_gateway_call + 1.5,
        gunicorn["graceful_timeout"],
        nginx_seconds("proxy_read_timeout"),
        int(client),
    ]

    assert ladder == sorted(set(ladder))
    assert gunicorn["timeout"] < nginx_seconds("proxy_read_timeout")
    # Nobody closes a connection that the one in front of it still believes in.
    assert nginx_seconds("keepalive_timeout") < gunicorn["keepalive"]
    # systemd does not kill what gunicorn still waits for.
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", (UNITS / "payments-web.service").read_text(), flags=re.MULTILINE)
    assert gunicorn["graceful_timeout"] < int(stop)


def test_each_step_of_the_ladder_is_in_the_guide(gunicorn: dict[str, Any]) -> None:
    guide = (ROOT / "docs" / "deployment.md").read_text()
    for step, seconds in {
        "a lock in the database": engines.LOCK_TIMEOUT_MS // 1000,
        "a statement in the database": engines.STATEMENT_TIMEOUT_MS // 1000,
        "an attempt at a gateway": Settings.from_environment({}).gateway_timeout_seconds,
        "gunicorn's worker that stops": gunicorn["graceful_timeout"],
        "nginx": nginx_seconds("proxy_read_timeout"),
    }.items():
        assert re.search(rf"^\| {step} \| {seconds} s", guide, flags=re.MULTILINE), step


def test_nginx_takes_bodies_as_large_as_the_service_does() -> None:
    (kib,) = re.findall(r"client_max_body_size (\d+)k;", SITE.read_text())

    assert int(kib) * 1024 == Settings.from_environment({}).flask_config()["MAX_CONTENT_LENGTH"]


def test_the_example_names_every_setting_with_a_comment_and_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = [match[1] for line in lines if (match := re.match(r"#?([A-Z][A-Z_]+)=", line))]
    table = (ROOT / "README.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
    in_the_readme = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", table, flags=re.MULTILINE))

    assert sorted(named) == sorted([*in_the_readme, "POSTGRES_PASSWORD"])  # compose's alone
    for before, line in itertools.pairwise(lines):
        if match := re.match(r"#?([A-Z][A-Z_]+)=(.*)", line):
            name, value = match.groups()
            assert before.startswith("#"), f"no comment above {name}"
            default = in_the_readme.get(name, "")
            if re.fullmatch(r"`[^`]+`", default) and name != "BIND":
                assert value.strip('"') == default.strip("`"), name


def test_the_example_is_read_alike_by_everybody_who_reads_it() -> None:
    """python-dotenv, systemd and compose agree on plain lines; an unquoted blank or a # after a value they do not."""
    for line in (ROOT / ".env.example").read_text().splitlines():
        if match := re.match(r"#?[A-Z][A-Z_]+=(.*)", line):
            assert re.fullmatch(r"[^\s\"'#$]*|\"[^\"#$]*\"", match[1]), line


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """``systemd-analyze`` on a file system in which the units are installed."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(UNITS, root / "etc/systemd/system")
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    for command in ("opt/payments/.venv/bin/gunicorn", "opt/payments/.venv/bin/flask", "bin/kill"):
        (root / command).parent.mkdir(parents=True, exist_ok=True)
        (root / command).touch(mode=0o755)
    return ["systemd-analyze", f"--root={root}", "--man=false"]


def test_systemd_understands_every_unit(systemd: list[str]) -> None:
    units = [unit.name for unit in UNITS.glob("*.*") if unit.is_file()]
    assert len(units) == 10
    checked = subprocess.run([*systemd, "verify", *units], capture_output=True, text=True, check=False)

    assert [line for line in checked.stderr.splitlines() if "payments" in line.removeprefix("/tmp")] == []  # noqa: S108
    assert checked.returncode == 0


@pytest.mark.parametrize("service", sorted(UNITS.glob("*.service")), ids=lambda path: path.stem)
def test_a_service_is_exposed_to_little(systemd: list[str], service: Path) -> None:
    """systemd's own measure, from 0 to 10; docs/deployment.md quotes it."""
    command = [*systemd, "security", "--offline=true", "--threshold=12", service.name]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout


def test_every_timer_starts_a_command_that_exists(tmp_path: Path) -> None:
    with app_with(f"sqlite:///{tmp_path / 'payments.db'}") as app:
        for timer in UNITS.glob("*.timer"):
            service = timer.with_suffix(".service").read_text()
            (command,) = re.findall(r"^ExecStart=\S+/flask --app wsgi (.+)$", service, flags=re.MULTILINE)
            group, name = command.split()
            assert name in app.cli.commands[group].commands, command  # type: ignore[attr-defined]  # a group has them
