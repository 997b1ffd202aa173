"""Requests that come through nginx are spread over the workers, however they come, and whichever worker is replaced."""

import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from config import WORKER_THREADS
from tests.support.databases import ROOT
from tests.support.nginx import Nginx, nginx_for
from tests.support.service import connections_of, free_port
from tests.support.socket_activated import SocketActivated
from tests.support.waiting import LOOK_AGAIN_SECONDS, PATIENCE_SECONDS, wait_until

CLIENTS = 32
# Of as many connections, neither of two workers may have more.
MOST = 20
STARTS = 3  # in the long form

# Each request leaves a file while it is served, which ends when there is a file "open".
SMALL_APP = """
import os, pathlib, threading, time

FOLDER = pathlib.Path(__file__).parent

def app(environ, start_response):
    served = FOLDER / f"served-{os.getpid()}-{threading.get_ident()}"
    served.touch()
    while not (FOLDER / "open").exists():
        time.sleep(0.01)
    served.unlink()
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
"""


class Small:
    """The app on two workers behind nginx, and its clients, each with a connection to nginx that it keeps."""

    def __init__(self, service: SocketActivated, nginx: Nginx, folder: Path) -> None:
        self.service, self.nginx = service, nginx
        self._folder = folder
        # A list, because threads that add to a counter can lose each other's additions.
        self.statuses: list[int] = []
        # The most connections that a worker had.
        self.most = 0

    def open(self) -> None:
        (self._folder / "open").touch()

    def close(self) -> None:
        (self._folder / "open").unlink()

    def replace_a_worker(self) -> None:
        """As gunicorn does with one that has served enough requests."""
        before = self.service.workers()
        os.kill(min(before), signal.SIGTERM)
        wait_until(lambda: len(now := self.service.workers()) == len(before) and now != before)

    def served(self) -> Counter[int]:
        """How many requests each worker serves at the moment, by its process id."""
        return Counter(int(path.name.split("-")[1]) for path in self._folder.glob("served-*"))

    def connections(self) -> dict[int, int]:
        """How many connections each worker has, by its process id."""
        return connections_of(self.service.pid, self.service.path)

    def get_once(self, _number: int = 0) -> int:
        with self.nginx.client() as client:
            return client.get(self.nginx.url, timeout=PATIENCE_SECONDS).status_code

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """While the block runs, all clients send one request after the other, and the connections are counted."""
        is_over = threading.Event()

        def send() -> None:
            with self.nginx.client() as client:
                while not is_over.is_set():
                    self.statuses.append(client.get(self.nginx.url, timeout=PATIENCE_SECONDS).status_code)

        def count() -> None:
            while not is_over.wait(LOOK_AGAIN_SECONDS):
                self.most = max(self.most, *self.connections().values(), 0)

        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            running = [pool.submit(count), *(pool.submit(send) for _ in range(CLIENTS))]
            try:
                self.wait_for_more()
                yield
                self.wait_for_more()
            finally:
                is_over.set()
        for one in running:
            one.result()

    def wait_for_more(self) -> None:
        """Wait until there are several more responses for each client."""
        enough = len(self.statuses) + 4 * CLIENTS
        wait_until(lambda: len(self.statuses) >= enough)


@pytest.fixture(scope="module")
def small() -> Iterator[Small]:
    with tempfile.TemporaryDirectory(prefix="payments-spread-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers are another user if root starts nginx
        with running(folder) as small:
            yield small


@contextmanager
def running(folder: Path) -> Iterator[Small]:
    (folder / "small.py").write_text(SMALL_APP)
    options = ["-c", str(ROOT / "gunicorn.conf.py"), "--chdir", str(folder), "--pythonpath", str(ROOT), "small:app"]
    service = SocketActivated(folder, *options, WEB_CONCURRENCY="2")
    with nginx_for(service.path, folder, free_port()) as nginx:
        small = Small(service, nginx, folder)
        small.open()
        service.start()
        try:
            yield small
        finally:
            small.open()
            service.close()


def test_requests_wait_for_whichever_worker_has_an_idle_thread_first(small: Small) -> None:
    small.close()
    with ThreadPoolExecutor(CLIENTS) as pool:
        statuses = pool.map(small.get_once, range(CLIENTS))
        every_thread = dict.fromkeys(small.service.workers(), WORKER_THREADS)
        wait_until(lambda: small.served() == every_thread, lambda: str(small.served()))
        # The other requests are in the queue of both workers.
        assert small.connections() == every_thread

        small.open()
        assert set(statuses) == {200}


def test_no_worker_ever_has_more_than_its_share_of_the_connections(small: Small, *, is_long: bool) -> None:
    for start in range(STARTS if is_long else 1):
        if start:
            small.service.restart()
        with small.under_load():
            small.replace_a_worker()

    assert set(small.statuses) == {200}
    assert 0 < small.most <= MOST
