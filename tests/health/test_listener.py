"""The health listener: it answers whatever the service does, says what is wrong, and lives as long as the master."""

import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from config import gunicorn_settings
from payments_app.health import supervisor
from tests.support.databases import ROOT
from tests.support.service import children_of, free_port, listeners_of, workers_of
from tests.support.socket_activated import SocketActivated
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Seconds. The promise is 100 ms. This only has to tell an answer at once from one that waits for the service, whose
# workers are stopped here and never answer.
AT_ONCE_SECONDS = 5

# Of one worker, as in gunicorn.conf.py.
THREADS = 8

# An app in which one path keeps its thread until it is told to go on, and /readyz says what a file says.
WAITING_APP = """
import os, pathlib, time
FOLDER = pathlib.Path(__file__).parent

def app(environ, start_response):
    path = environ["PATH_INFO"]
    while path == "/wait" and not (FOLDER / "go").exists():
        time.sleep(0.02)
    not_ready = path == "/readyz" and (FOLDER / "not-ready").exists()
    start_response("503 Service Unavailable" if not_ready else "200 OK", [("Content-Type", "application/json")])
    if not_ready:
        return [b'{"type": "/problems/not-ready", "data": {"failed": ["database", "index"]}}']
    return [b'{"status": "ok", "parts": {"database": "ok"}}']
"""


class Listener:
    """A client of the health listener."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bind = f"127.0.0.1:{self.port}"

    def get(self, path: str) -> requests.Response:
        return requests.get(f"http://{self.bind}{path}", timeout=AT_ONCE_SECONDS)

    def failed(self) -> list[str]:
        """The names of what is wrong, by /readyz; empty if it is ready."""
        answer = self.get("/readyz")
        if answer.status_code == 200:
            return []
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert answer.headers["Content-Type"] == "application/problem+json"
        data: dict[str, Any] = answer.json()["data"]
        assert data["failed"] == list(data["reasons"])
        assert data["age_seconds"] >= 0
        return list(data["failed"])

    def wait_until_ready(self) -> None:
        wait_until(lambda: not self.failed(), lambda: self.get("/readyz").text)

    def is_silent(self) -> bool:
        """Whether nothing listens on the port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0


@pytest.fixture
def listener() -> Listener:
    return Listener()


def options_for(folder: Path) -> list[str]:
    """gunicorn's options for the folder's app."""
    return ["-c", str(ROOT / "gunicorn.conf.py"), "--chdir", str(folder), "--pythonpath", str(ROOT), "small:app"]


@contextmanager
def small_service(folder: Path, listener: Listener) -> Iterator[SocketActivated]:
    """``WAITING_APP`` on a socket as systemd passes it, with the settings of gunicorn.conf.py."""
    (folder / "small.py").write_text(WAITING_APP)
    service = SocketActivated(folder, *options_for(folder), WEB_CONCURRENCY="1", HEALTH_BIND=listener.bind)
    service.start()
    try:
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SocketActivated, Listener, Path]]:
    """One service for all tests, as starting takes time. At first it is not ready; the last test stops it."""
    folder, listener = tmp_path_factory.mktemp("shared"), Listener()
    (folder / "not-ready").touch()
    with small_service(folder, listener) as service:
        yield service, listener, folder


Shared = tuple[SocketActivated, Listener, Path]


@contextmanager
def hanging(service: SocketActivated, folder: Path) -> Iterator[None]:
    """While the block runs, requests take all threads of the one worker."""
    with ExitStack() as clients:
        for _ in range(THREADS):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(service.path))
            client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            yield
        finally:
            (folder / "go").touch()


def test_it_says_what_the_service_says_of_itself(shared: Shared) -> None:
    _service, listener, folder = shared
    wait_until(lambda: listener.failed() == ["database", "index"])

    (folder / "not-ready").unlink()

    listener.wait_until_ready()
    assert listener.get("/readyz").json()["parts"] == {"database": "ok", "requests": "ok"}


def test_while_all_threads_hang_it_answers_and_says_that_requests_starve(shared: Shared) -> None:
    service, listener, folder = shared
    with hanging(service, folder):
        wait_until(lambda: listener.failed() == ["requests"])
        healthy = listener.get("/healthz")
        assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})
        assert "starve" in listener.get("/readyz").json()["data"]["reasons"]["requests"]

    listener.wait_until_ready()


@pytest.mark.long
def test_other_requests_are_refused_and_slow_clients_keep_nobody_waiting(shared: Shared) -> None:
    _service, listener, _folder = shared
    with socket.create_connection(("127.0.0.1", listener.port), PATIENCE_SECONDS) as slow:
        slow.sendall(b"GET /readyz")
        assert listener.get("/metrics").status_code == 404
        assert listener.get("/healthz?x=1").status_code == 200
        assert requests.head(f"http://{listener.bind}/healthz", timeout=AT_ONCE_SECONDS).content == b""
        assert requests.post(f"http://{listener.bind}/healthz", timeout=AT_ONCE_SECONDS).status_code == 501
        assert slow.recv(1) == b""  # it is cut off


def test_it_is_started_again_and_goes_through_a_reload(shared: Shared) -> None:
    service, listener, _folder = shared
    (first,) = listeners_of(service.pid)
    os.kill(first, signal.SIGKILL)
    # The socket is the master's: this waits for the next process, and is not refused.
    assert requests.get(f"http://{listener.bind}/healthz", timeout=PATIENCE_SECONDS).status_code == 200
    (second,) = listeners_of(service.pid)
    assert second != first

    service.reload()

    listener.wait_until_ready()
    assert listeners_of(service.pid) == {second}


def test_it_has_no_settings_and_no_sockets_but_its_own(shared: Shared) -> None:
    service, _listener, _folder = shared
    (process,) = listeners_of(service.pid)

    assert Path(f"/proc/{process}/environ").read_bytes() == b""
    descriptors = [str(file.readlink()) for file in Path(f"/proc/{process}/fd").iterdir()]
    listening = [name for name in descriptors if name.startswith("socket:")]
    assert len(listening) <= 3  # its own, and one for each of its two pollers


def test_while_the_service_stops_it_says_so_and_it_ends_with_the_master(shared: Shared) -> None:
    service, listener, folder = shared
    (folder / "go").unlink(missing_ok=True)
    listener.wait_until_ready()
    with hanging(service, folder):
        os.kill(service.pid, signal.SIGTERM)
        wait_until(lambda: listener.failed() == ["stopping"])
        assert listener.get("/healthz").status_code == 200

    wait_until(listener.is_silent)


@pytest.mark.long
def test_it_ends_with_a_master_that_is_killed_and_the_next_one_can_start(tmp_path: Path, listener: Listener) -> None:
    with small_service(tmp_path, listener) as service:
        workers = service.workers()
        for worker in workers:  # a busy worker outlives its master for a while
            os.kill(worker, signal.SIGSTOP)
        try:
            service.kill()
            wait_until(listener.is_silent)
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
        service.start()
        listener.wait_until_ready()


@pytest.mark.long
def test_a_new_master_answers_on_the_same_port_before_the_old_one_goes(tmp_path: Path, listener: Listener) -> None:
    """On a port of its own: gunicorn itself cannot hand a socket of systemd's on to a new master."""
    (tmp_path / "small.py").write_text(WAITING_APP)
    program = [sys.executable, str(Path(sys.executable).with_name("gunicorn")), *options_for(tmp_path)]
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "WEB_CONCURRENCY": "1", "HEALTH_BIND": listener.bind}
    with (tmp_path / "log").open("wb") as log:
        old = subprocess.Popen(program, env=environment, stdout=log, stderr=log)
    wait_until(lambda: not listener.is_silent() and not listener.failed())
    old.send_signal(signal.SIGUSR2)
    wait_until(lambda: any(listeners_of(child) for child in children_of(old.pid)))
    (new,) = [child for child in children_of(old.pid) if listeners_of(child)]
    try:
        wait_until(lambda: len(workers_of(new)) == 1)
        with ExitStack() as clients:  # some of them at the old one, so that it takes its time
            for _ in range(4 * THREADS):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
            old.terminate()
            wait_until(lambda: not listeners_of(old.pid))
            assert listener.get("/healthz").status_code == 200
            assert "stopping" not in listener.failed()
            (tmp_path / "go").touch()
            assert old.wait(PATIENCE_SECONDS) == 0
        listener.wait_until_ready()
    finally:
        os.kill(new, signal.SIGTERM)
    wait_until(listener.is_silent)


def test_an_address_that_is_taken_stops_the_start_with_one_line(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEALTH_BIND", listener.bind)
    monkeypatch.setattr(supervisor, "BIND_SECONDS", 0)
    settings = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    master = SimpleNamespace(manage_workers=None, stop=None)
    with socket.create_server(("127.0.0.1", listener.port)), pytest.raises(SystemExit) as refusal:
        settings["on_starting"](master)

    assert str(refusal.value).startswith("refusing to start: HEALTH_BIND cannot be used: ")
    assert "\n" not in str(refusal.value)


def test_a_laptop_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEALTH_BIND", raising=False)

    assert gunicorn_settings({})[2] is None
    assert gunicorn_settings({"HEALTH_BIND": "[::1]:8001"})[2] == ("::1", 8001)
