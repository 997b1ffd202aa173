"""The real service: gunicorn with worker processes, and functions that send many requests at once."""

import atexit
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import requests

from tests.support.people import Person
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.support.warm_python import WarmProcess, start_python

T = TypeVar("T")


@dataclass
class Service:
    """A running gunicorn."""

    url: str
    log: Path
    process: subprocess.Popen[bytes] | WarmProcess

    @classmethod
    @contextmanager
    def started(cls, database_url: str, workers: int = 2, /, **environment: str) -> Iterator[Self]:
        """Start it, wait until every worker has answered a request, and stop it at the end."""
        port = free_port()
        log = _logs() / secrets.token_hex(8)
        settings = {
            "APP_ENV": "testing",
            "DATABASE_URL": database_url,
            "PORT": str(port),
            "WEB_CONCURRENCY": str(workers),
            "RATELIMIT_ENABLED": "false",
        }
        arguments = ("--access-logfile", "-", "--access-logformat", "served by %(p)s")
        gunicorn = start_python(
            "gunicorn", *arguments, environment={**os.environ, **settings, **environment}, output=log
        )
        service = cls(f"http://127.0.0.1:{port}", log, gunicorn)
        try:
            service.wait_until_answered_by(workers)
            yield service
        finally:
            service.stop()

    def wait_until_answered_by(self, workers: int) -> None:
        def have_answered() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"gunicorn did not come up:\n{self.log.read_text()}")
            with suppress(requests.ConnectionError):  # it does not listen yet
                requests.get(f"{self.url}/api/v1/me", timeout=PATIENCE_SECONDS)
            return len(self.pids_that_served()) >= workers

        wait_until(have_answered, self.log.read_text)

    def stop(self) -> None:
        """No request is running, so its workers are killed: to end by themselves takes them a third of a second."""
        workers = self.workers()
        self.process.send_signal(signal.SIGQUIT)  # from here on the master starts no others
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        self.process.wait(PATIENCE_SECONDS)

    def pids_that_served(self) -> set[str]:
        return {line.split()[-1] for line in self.log.read_text().splitlines() if line.startswith("served by")}

    def workers(self) -> set[int]:
        """The ids of the worker processes; none if it has ended."""
        return workers_of(self.process.pid)

    def post(self, person: Person, path: str, json: Any, **headers: str) -> requests.Response:
        return requests.post(
            f"{self.url}/api/v1{path}",
            json=json,
            headers={**person.authorization, **headers},
            timeout=PATIENCE_SECONDS,
        )

    def pay(self, person: Person, consultation_id: int, key: str) -> requests.Response:
        body = {"consultation_id": consultation_id, "amount": 5000, "payment_method": "stripe"}
        return self.post(person, "/payments", body, **{"Idempotency-Key": key})


@cache
def _logs() -> Path:
    """The folder for the logs of this process's services, which some tests read after a service has ended."""
    folder = Path(tempfile.mkdtemp(prefix="payments-gunicorn-"))
    atexit.register(shutil.rmtree, folder)
    return folder


def workers_of(master: int) -> set[int]:
    """The ids of a gunicorn's worker processes."""
    return {child for child in children_of(master) if not _is_listener(child)}


def connections_of(master: int, path: Path) -> dict[int, int]:
    """How many connections each worker of a gunicorn on a Unix socket has accepted and not closed, by process id."""
    # Columns: address, references, protocol, flags, type, state, inode, path. 03 is connected, and no listening socket.
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    connected = {f"socket:[{line[6]}]" for line in lines if line[5] == "03" and line[7:] == [str(path)]}
    return {worker: len(connected & _open_files(worker)) for worker in workers_of(master)}


def _open_files(pid: int) -> set[str]:
    files = set()
    with suppress(FileNotFoundError):  # it has ended meanwhile
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed meanwhile
                files.add(str(file.readlink()))
    return files


def listeners_of(master: int) -> set[int]:
    """The id of the process that answers on HEALTH_BIND, if there is one."""
    return {child for child in children_of(master) if _is_listener(child)}


def children_of(pid: int) -> set[int]:
    """The ids of the child processes; none of a process that has ended."""
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except (FileNotFoundError, ProcessLookupError):
        return set()


def _is_listener(pid: int) -> bool:
    try:
        return b"health/listener.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False


class HasStatus(Protocol):
    """A response of requests' or of Werkzeug's."""

    @property
    def status_code(self) -> int: ...


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make all calls at the same moment, each in its own thread; returns their results in the same order."""
    gate = threading.Barrier(len(calls))

    def call(make: Callable[[], T]) -> T:
        gate.wait(PATIENCE_SECONDS)
        return make()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def statuses(answers: Sequence[HasStatus]) -> dict[int, int]:
    """How many responses have each status."""
    counted: dict[int, int] = {}
    for answer in answers:
        counted[answer.status_code] = counted.get(answer.status_code, 0) + 1
    return counted


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
