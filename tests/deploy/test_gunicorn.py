"""What gunicorn.conf.py promises of workers that come and go, seen on apps small enough to see it."""

import os
import runpy
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidHeader
from gunicorn.http.parser import RequestParser
from gunicorn.workers.base import Worker
from sqlalchemy import text

from tests.support.databases import ROOT, Database
from tests.support.fresh_databases import engine_on
from tests.support.socket_activated import SocketActivated
from tests.support.waiting import wait_until

# A counter and a gauge of each process, beside those of payments_app/observability/metrics.py, and a word that may be
# changed.
SMALL_APP = """
from prometheus_client import Counter, Gauge, generate_latest
from payments_app.observability.shared_values import shared

ASKED = Counter("asked", "Requests")
ALIVE = Gauge("alive", "Processes", multiprocess_mode="livesum")

def app(environ, start_response):
    ASKED.inc()
    ALIVE.set(1)
    start_response("200 OK", [])
    return [b"code old\\n", generate_latest(shared())]
"""


@contextmanager
def gunicorn(folder: Path, app: str, **environment: str) -> Iterator[SocketActivated]:
    """An app of the folder's, served as gunicorn.conf.py says."""
    options = ["-c", str(ROOT / "gunicorn.conf.py"), "--chdir", str(folder), "--pythonpath", str(ROOT), app]
    service = SocketActivated(folder, *options, WEB_CONCURRENCY="2", **environment)
    service.start()
    try:
        yield service
    finally:
        service.close()


def test_it_listens_wherever_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses(**environment: str) -> list[str]:
        for name in ("BIND", "PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
        return list(settings["bind"])

    assert addresses() == ["127.0.0.1:8000"]
    assert addresses(PORT="9000") == ["127.0.0.1:9000"]
    # A string that gunicorn is left to split, it takes for the name of one socket.
    both = "unix:/run/payments/gunicorn.sock,127.0.0.1:8000"
    assert addresses(BIND=both, PORT="9000") == both.split(",")


def test_of_a_request_that_cannot_be_read_the_log_has_no_word(caplog: pytest.LogCaptureFixture) -> None:
    settings = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    config = Config()
    logger = settings["GunicornLogger"](config)
    worker = Worker(1, os.getpid(), [], None, 1, config, logger)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            next(RequestParser(config, [b"GET / HTTP/1.1\r\nAuthorization Bearer the-token\r\n\r\n"], None))
        except InvalidHeader as error:
            worker.handle_error(None, ours, ("192.0.2.1", 1), error)
        assert theirs.recv(1024).startswith(b"HTTP/1.1 400")
    worker.tmp.close()

    assert caplog.messages == ["Invalid request: InvalidHeader"]


@pytest.mark.parametrize("path", ["/pay/the-token", "/p%61y%2fthe-token", "/pay/the-token/x"])
def test_an_access_log_has_no_token_of_a_link(path: str) -> None:
    """The service switches it off; an operator may switch it on."""
    settings = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    logger = settings["GunicornLogger"](Config())
    referrer = "https://pay.example.org/pay/the-token"
    environ = {"RAW_URI": path, "PATH_INFO": "/pay/the-token", "HTTP_REFERER": referrer}
    environ |= {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}
    response = SimpleNamespace(status="200 OK", headers=[], sent=0)

    atoms = logger.atoms(response, [("Referer", referrer)], environ, timedelta(0))

    assert (atoms["r"], atoms["U"], atoms["f"]) == ("GET /pay/* HTTP/1.1", "/pay/*", "https://pay.example.org/pay/*")
    assert "the-token" not in str(atoms)


def value(answer: str, name: str) -> float:
    (line,) = [line for line in answer.splitlines() if line.split(" ")[0] == name]
    return float(line.split(" ")[1])


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the small app."""
    code = tmp_path_factory.mktemp("small") / "small.py"
    code.write_text(SMALL_APP)
    return code


@pytest.fixture(scope="module")
def small(code: Path) -> Iterator[SocketActivated]:
    with gunicorn(code.parent, "small:app") as service:
        yield service


def test_a_killed_worker_counts_no_more_among_the_live_ones(small: SocketActivated) -> None:
    assert value(small.get("/"), "alive") == 2
    before = small.workers()
    small.kill_workers()
    wait_until(lambda: len(small.workers() - before) == 2 and value(small.get("/"), "alive") == 2)


def test_a_reload_brings_new_workers_but_no_new_code_and_forgets_no_counts(small: SocketActivated, code: Path) -> None:
    asked = value(small.get("/"), "asked_total")
    code.write_text(SMALL_APP.replace("code old", "code new"))

    small.reload()
    reloaded = small.get("/")
    assert "code old" in reloaded
    assert value(reloaded, "asked_total") > asked
    wait_until(lambda: value(small.get("/"), "alive") == 2)  # those that are gone are not counted

    small.restart()
    assert "code new" in small.get("/")


def test_processes_without_room_for_metrics_serve_all_the_same(tmp_path: Path) -> None:
    code = SMALL_APP.replace("generate_latest(shared())", "generate_latest(shared()), generate_latest(it.LostCounts())")
    few = "import payments_app.observability.shared_values as it\nit.LEAST_SLOTS, it.SLOTS_PER_WORKER = 1, 0\n"
    (tmp_path / "small.py").write_text(few + code)  # room for the master alone
    with gunicorn(tmp_path, "small:app") as service:
        answer = service.get("/")
        assert value(answer, "asked_total") == 0  # the master's
        assert value(answer, "payments_metrics_lost_total") >= 2 * 2  # of both workers, which have answered before
        wait_until(lambda: service.log.read_text().count("Metrics of this process are lost") == 2)


def test_a_connection_of_the_loading_process_is_not_shared_by_the_workers(
    databases: Callable[[str], Database], tmp_path: Path
) -> None:
    database = databases("postgresql")
    (tmp_path / "looking.py").write_text(
        "from wsgi import app\n"
        "from payments_app.accounts.repository import find_credentials\n"
        "with app.app_context():\n"
        "    find_credentials('nobody@example.com')\n"
    )
    environment = {"APP_ENV": "testing", "DATABASE_URL": database.url, "PGAPPNAME": "looking"}
    with gunicorn(tmp_path, "looking:app", **environment) as service, engine_on(database.url) as engine:
        login = b'{"email": "nobody@example.com", "password": "wrong"}'

        def connections() -> int:
            service.post("/api/login", login)
            with engine.connect() as connection:
                query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'looking'"
                return connection.scalar(text(query)) or 0

        # The loading process's, and one of each worker.
        wait_until(lambda: connections() == 3)
