"""Starts a gunicorn for the proof, with the deployment's code, settings, database and Redis, on a free port."""

import os
import signal
import socket
import subprocess  # nosec B404  # starts our own interpreter, without a shell
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import urllib3
from urllib3.exceptions import HTTPError

from payments_app import child_process

ROOT = Path(__file__).parents[2]

# Seconds; far longer than a start takes, or a stop without open requests.
START_SECONDS = 60
STOP_SECONDS = 60

# As a proxy on this machine would set it: production refuses requests that did not come by HTTPS.
HEADERS = {"X-Forwarded-Proto": "https"}


class Workers(Protocol):
    """Worker processes that may be killed, because they serve this proof only."""

    def kill(self) -> None: ...


class DoesNotStart(Exception):
    """The gunicorn did not start; the text has its last log line."""


class OwnWorkers:
    """The workers of a gunicorn that this process has started."""

    def __init__(self, master_pid: int) -> None:
        self._children = Path(f"/proc/{master_pid}/task/{master_pid}/children")

    @staticmethod
    def can_be_found() -> bool:
        """Whether the system lists the children of a process in /proc: Linux does."""
        return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()

    def kill(self) -> None:
        """Kill all workers (SIGKILL) in the middle of their requests. gunicorn starts new ones."""
        for worker in self._children.read_text().split():
            os.kill(int(worker), signal.SIGKILL)


@contextmanager
def own_gunicorn() -> Iterator[tuple[str, OwnWorkers]]:
    """Start gunicorn on a free port of 127.0.0.1 and stop it at the end. Yields its URL and its workers.

    Raises:
        DoesNotStart: it ended, or did not respond in time.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            child_process.command("gunicorn", "-c", "gunicorn.conf.py"),
            cwd=ROOT,
            env=_environment(listener),
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C must only reach this process: the server has to finish the requests under way.
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            _wait_until_ready(url, process, log.fileno())
            yield url, OwnWorkers(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment(listener: socket.socket) -> dict[str, str]:
    ours = {
        "BIND": f"fd://{listener.fileno()}",
        "TRUSTED_PROXIES": "1",  # the proof's client
        "LOG_LEVEL": "WARNING",
    }
    # Without the sockets that systemd has passed to our parent, without GUNICORN_CMD_ARGS, which takes precedence over
    # BIND, and without HEALTH_BIND: all may name a socket of the live service.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LISTEN_") and name not in ("GUNICORN_CMD_ARGS", "HEALTH_BIND")
    }
    return {**inherited, **ours}


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            # Close the connection: an idle one would delay a worker's stop.
            urllib3.request("GET", f"{url}/healthz", headers={"Connection": "close"}, retries=False, timeout=5)
        except HTTPError:
            time.sleep(0.05)
        else:
            return
    reason = f"it did not respond within {START_SECONDS} seconds" if process.poll() is None else "it ended"
    lines = os.pread(log, 100_000, 0).decode(errors="replace").splitlines()
    raise DoesNotStart(f"{reason}; last log line: {lines[-1] if lines else 'none'}")
