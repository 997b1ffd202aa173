"""The files that an operator copies agree with one another, with the code and with what they are for."""

import itertools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from payments_app.api import queue_time
from payments_app.db import engine, transaction
from payments_app.db.deadline import MARGIN_SECONDS
from payments_app.gateway_webhooks import routes
from payments_app.gateways.stripe.client import NETWORK_RETRIES
from tests.support.apps import app_with
from tests.support.databases import ROOT
from tests.support.nginx import SITE

UNITS = ROOT / "deploy" / "systemd"
PGBOUNCER = ROOT / "deploy" / "pgbouncer.ini"


@pytest.fixture(scope="module")
def gunicorn() -> dict[str, Any]:
    """The settings of gunicorn.conf.py."""
    return runpy.run_path(str(ROOT / "gunicorn.conf.py"))


def nginx_seconds(directive: str) -> int:
    (seconds,) = re.findall(rf"^\s*{directive} (\d+)s;", SITE.read_text(), flags=re.MULTILINE)
    return int(seconds)


def pgbouncer_seconds(setting: str) -> int:
    (seconds,) = re.findall(rf"^{setting} = (\d+)$", PGBOUNCER.read_text(), flags=re.MULTILINE)
    return int(seconds)


def test_pgbouncer_is_no_less_patient_with_its_clients_than_with_its_server() -> None:
    """So a client that waits gets the connection of the second attempt, if there is a second server by then."""
    assert pgbouncer_seconds("server_connect_timeout") < pgbouncer_seconds("query_wait_timeout")
    assert pgbouncer_seconds("server_login_retry") < pgbouncer_seconds("query_wait_timeout")


def test_every_step_of_the_ladder_gives_up_before_the_one_that_waits_for_it(gunicorn: dict[str, Any]) -> None:
    attempt = Settings.from_environment({}).gateway_timeout_seconds
    call = (1 + NETWORK_RETRIES) * attempt + 1.5
    # The most that one request asks of a gateway: a checkout opens a session, finds the payment ended, and ends it.
    checkout = call + attempt
    guide = (ROOT / "docs" / "deployment.md").read_text()
    (client,) = re.findall(r"^\| the client \| (\d+) s", guide, flags=re.MULTILINE)
    ladder = [
        engine.LOCK_TIMEOUT_MS / 1000,
        pgbouncer_seconds("query_wait_timeout"),
        engine.STATEMENT_TIMEOUT_MS / 1000,
        max(engine.STATEMENT_TIMEOUT_MS / 1000 + MARGIN_SECONDS, transaction.LOCK_PATIENCE_SECONDS),
        attempt,
        call,
        checkout,
        gunicorn["graceful_timeout"],
        nginx_seconds("proxy_read_timeout"),
        int(client),
    ]

    assert ladder == sorted(set(ladder))
    # If that is refused it looks why, once. No outcome hangs on this answer: a stop may cut it off, nginx must not.
    assert checkout + attempt < nginx_seconds("proxy_read_timeout")
    assert gunicorn["timeout"] < nginx_seconds("proxy_read_timeout")
    # Whatever is not refused for its time in the queue is answered before nginx gives up.
    assert transaction.LOCK_PATIENCE_SECONDS < queue_time.LONGEST_WAIT_SECONDS
    assert queue_time.LONGEST_WAIT_SECONDS + checkout < nginx_seconds("proxy_read_timeout")
    # systemd does not kill what gunicorn still waits for.
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", (UNITS / "payments-web.service").read_text(), flags=re.MULTILINE)
    assert gunicorn["graceful_timeout"] < int(stop)


def test_a_connection_to_a_worker_carries_one_request_and_has_a_thread(gunicorn: dict[str, Any]) -> None:
    """So none is closed by one side while the other sends on it, and no worker accepts what it cannot serve at once."""
    assert gunicorn["keepalive"] == 0
    assert gunicorn["worker_connections"] == gunicorn["threads"]
    site = SITE.read_text()
    assert re.findall(r"^\s*keepalive", site, flags=re.MULTILINE) == []
    assert re.findall(r"^\s*proxy_set_header Connection (.+);", site, flags=re.MULTILINE) == ["close"]


def test_each_step_of_the_ladder_is_in_the_guide(gunicorn: dict[str, Any]) -> None:
    guide = (ROOT / "docs" / "deployment.md").read_text()
    for step, seconds in {
        "a lock in the database": engine.LOCK_TIMEOUT_MS / 1000,
        "a new connection to a database server": engine.CONNECT_TIMEOUT_SECONDS,
        "a client's wait in PgBouncer, if there is one": pgbouncer_seconds("query_wait_timeout"),
        "a statement in the database": engine.STATEMENT_TIMEOUT_MS // 1000,
        "a statement, on our side": engine.STATEMENT_TIMEOUT_MS // 1000 + MARGIN_SECONDS,
        "an attempt at a gateway": Settings.from_environment({}).gateway_timeout_seconds,
        "a gunicorn worker that is stopping": gunicorn["graceful_timeout"],
        "nginx": nginx_seconds("proxy_read_timeout"),
    }.items():
        assert re.search(rf"^\| {step} \| {seconds} s", guide, flags=re.MULTILINE), step


def test_nginx_takes_bodies_as_large_as_the_service_does() -> None:
    general, of_webhooks = re.findall(r"client_max_body_size (\d+)k;", SITE.read_text())

    assert int(general) * 1024 == Settings.from_environment({}).flask_config()["MAX_CONTENT_LENGTH"]
    assert int(of_webhooks) * 1024 == routes.MAX_BODY_BYTES
    # And keeps them in memory.
    assert [general, of_webhooks] == re.findall(r"client_body_buffer_size (\d+)k;", SITE.read_text())


def test_the_example_names_every_setting_with_a_comment_and_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = [match[1] for line in lines if (match := re.match(r"#?([A-Z][A-Z_]+)=", line))]
    page = (ROOT / "docs/settings.md").read_text()
    defaults = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", page, flags=re.MULTILINE))

    assert sorted(named) == sorted([*defaults, "POSTGRES_PASSWORD"])  # compose's alone
    for before, line in itertools.pairwise(lines):
        if match := re.match(r"#?([A-Z][A-Z_]+)=(.*)", line):
            name, value = match.groups()
            assert before.startswith("#"), f"no comment above {name}"
            default = defaults.get(name, "")
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
    for command in ("opt/payments/.venv/bin/gunicorn", "opt/payments/.venv/bin/flask", "bin/kill", "bin/sh"):
        (root / command).parent.mkdir(parents=True, exist_ok=True)
        (root / command).touch(mode=0o755)
    return ["systemd-analyze", f"--root={root}", "--man=false"]


def test_systemd_understands_every_unit(systemd: list[str]) -> None:
    units = [unit.name for unit in UNITS.glob("*.*") if unit.is_file()]
    assert len(units) == 13
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


HOSTILE = {
    "STRIPE_WEBHOOK_SECRET": "whsec_one,whsec_two",
    "DATABASE_URL": "postgresql+psycopg://payments:a&b;c@/payments?host=/run&x=$HOME",
    "SECRET_KEY": "$$(touch {folder}/touched)`touch {folder}/touched`${HOME}",
    "PAYMENT_INSTRUCTIONS_GCASH": "touch {folder}/touched & pay 'us' | * ~ #1 <soon>",
    "RATELIMIT_PAYMENTS": "10 per minute",
}


@pytest.fixture
def wrapper() -> Iterator[Callable[..., dict[str, Any]]]:
    """The script that an operator copies, which tells its environment, user and arguments instead of running flask."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory(prefix="payments-command-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the other user's too
        (folder / "env").touch(0o600)
        flask = folder / "flask"
        # The other user may not be allowed to read this Python.
        flask.write_text('#!/bin/sh\nid -un; printf "%s\\n" $# "$@"; env -0\n')
        flask.chmod(0o755)
        script = (ROOT / "deploy" / "payments").read_text()
        for shipped, ours in {
            "/opt/payments/.venv/bin/python": sys.executable,
            "/opt/payments/.venv/bin/flask": str(flask),
            '"/opt/payments"': repr(name),
            'getpwnam("payments")': 'getpwnam("nobody")',
            "/etc/payments/env": str(folder / "env"),
        }.items():
            assert script.count(shipped) == 1, shipped
            script = script.replace(shipped, ours)
        (folder / "payments").write_text(script)
        (folder / "payments").chmod(0o755)

        def run(lines: Iterable[str], *arguments: str, **environment: str) -> dict[str, Any]:
            (folder / "env").write_text("\n".join(lines).replace("{folder}", name) + "\n")
            ran = subprocess.run(
                [folder / "payments", *arguments],
                env={"PATH": os.environ["PATH"], **environment},
                capture_output=True,
                text=True,
                check=True,
            )
            assert not (folder / "touched").exists()
            user, count, *rest = ran.stdout.replace(name, "{folder}").split("\n", maxsplit=2 + len(arguments) + 2)
            told = dict(variable.split("=", 1) for variable in rest.pop().split("\0") if variable)
            assert int(count) == len(rest)
            return {"user": user, "arguments": rest, "env": told}

        yield run


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_command_has_the_settings_as_they_are_written_and_no_shell_reads_them(
    wrapper: Callable[..., dict[str, Any]], quote: str
) -> None:
    written = {name: value if quote else value.replace(" #", " ") for name, value in HOSTILE.items()}
    lines = ["# A comment", "", *(f"{name}={quote}{value}{quote}" for name, value in written.items())]

    told = wrapper(lines, "payments", "show", "4 1; $HOME", SUDO_USER="maria")

    assert {name: told["env"][name] for name in written} == written
    assert told["env"]["LOGNAME"] == "maria"
    assert told["user"] == "nobody"
    assert told["arguments"] == ["--app", "wsgi", "payments", "show", "4 1; $HOME"]


def test_a_database_that_is_named_with_the_command_goes_before_the_services(
    wrapper: Callable[..., dict[str, Any]],
) -> None:
    told = wrapper(["DATABASE_URL=theirs"], DATABASE_URL="restored")

    assert (told["env"]["DATABASE_URL"], told["env"]["LOGNAME"]) == ("restored", "root")


@pytest.fixture
def closed_python() -> Iterator[Path]:
    """A folder with a .venv whose Python only root may read, as one in /root."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory(prefix="payments-closed-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "root").mkdir(mode=0o700)
        shutil.copy("/bin/true", folder / "root" / "python")
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "python").symlink_to(folder / "root" / "python")
        yield folder


def test_a_python_that_the_service_may_not_run_is_said_by_the_command(closed_python: Path) -> None:
    flask = closed_python / "flask"
    flask.write_text(f"#!{closed_python}/.venv/bin/python\n")
    flask.chmod(0o755)
    script = (ROOT / "deploy" / "payments").read_text()
    for shipped, ours in {
        "/opt/payments/.venv/bin/flask": str(flask),
        '"/opt/payments"': repr(str(closed_python)),
        'getpwnam("payments")': 'getpwnam("nobody")',
        "/etc/payments/env": "/dev/null",
    }.items():
        assert script.count(shipped) == 1, shipped
        script = script.replace(shipped, ours)
    (closed_python / "payments").write_text(script)

    ran = subprocess.run(
        [sys.executable, closed_python / "payments", "check"], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
    assert f"the user nobody may not run {flask}: make .venv with a Python that every user may read" in ran.stderr


def test_a_python_that_the_service_may_not_run_is_said_by_systemd(closed_python: Path) -> None:
    common = (UNITS / "payments-.service.d" / "common.conf").read_text()
    (line,) = re.findall(r"^ExecStartPre=(.+)$", common, flags=re.MULTILINE)

    def start() -> "subprocess.CompletedProcess[str]":
        """As systemd does, whose quotes are a shell's; ``$`` and ``%`` would not be."""
        assert not set("$%\\") & set(line)
        return subprocess.run(
            shlex.split(line), cwd=closed_python, user="nobody", capture_output=True, text=True, check=False
        )

    told = start()
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert "make .venv with a Python that every user may read" in told.stderr

    (closed_python / "root").chmod(0o755)
    assert start().returncode == 0


def test_what_is_not_where_it_should_be_is_one_line(tmp_path: Path) -> None:
    script = (ROOT / "deploy" / "payments").read_text().replace('getpwnam("payments")', 'getpwnam("no-such-user")')
    (tmp_path / "payments").write_text(script)

    ran = subprocess.run([sys.executable, tmp_path / "payments"], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
    assert "'no-such-user'" in ran.stderr


def test_prometheus_asks_where_the_site_answers() -> None:
    """A service that systemd hands its socket to listens nowhere else; nginx opens /metrics to this machine."""
    asks = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    site = SITE.read_text()

    assert re.search(r"^ +scheme: https$", asks, flags=re.MULTILINE)
    (target,) = re.findall(r'targets: \["(.+):(\d+)"\]', asks)
    assert target == ("127.0.0.1", "443")
    assert "listen 443 ssl;" in site
    (name,) = re.findall(r"server_name: (\S+)", asks)
    assert set(re.findall(r"server_name (\S+);", site)) == {name}


def test_health_is_asked_where_it_is_answered() -> None:
    (port,) = re.findall(r"server 127\.0\.0\.1:(\d+) max_fails=0;", SITE.read_text())
    address = f"127.0.0.1:{port}"

    assert f"\nEnvironment=HEALTH_BIND={address}\n" in (UNITS / "payments-web.service").read_text()
    image = (ROOT / "deploy" / "Dockerfile").read_text()
    assert f" HEALTH_BIND={address}\n" in image
    assert f"http://{address}/healthz" in image
    assert f"#HEALTH_BIND={address}\n" in (ROOT / ".env.example").read_text()
    # Whoever can reach the port without nginx is on this machine, or in this container.
    assert "network_mode: service:app" in (ROOT / "deploy" / "compose.yaml").read_text()
