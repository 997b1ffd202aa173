"""A gunicorn of the proof's own, with the deployment's code, settings, database and Redis, on a port of its own."""

import os
import signal
import socket
import subprocess  # nosec B404  # starts our own interpreter, without a shell
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import urllib3
from urllib3.exceptions import HTTPError

ROOT = Path(__file__).parents[2]

# Seconds; far longer than a start takes, or a stop with nothing left to answer.
START_SECONDS = 60
STOP_SECONDS = 60

# What is asked comes as if by a proxy on this machine that speaks HTTPS: production refuses everything else.
HEADERS = {"X-Forwarded-Proto": "https"}


class Workers(Protocol):
    """Worker processes that may be killed, because they are nobody else's."""

    def kill(self) -> None: ...


class DoesNotStart(Exception):
    """What became of it, and what it said last."""


class OwnWorkers:
    """The children of a gunicorn that we have started."""

    def __init__(self, master_pid: int) -> None:
        self._children = Path(f"/proc/{master_pid}/task/{master_pid}/children")

    @staticmethod
    def can_be_found() -> bool:
        """Whether this system tells who is whose child: Linux does."""
        return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()

    def kill(self) -> None:
        """As ``kill -9``: whatever they were at is cut off. gunicorn starts others."""
        for worker in self._children.read_text().split():
            os.kill(int(worker), signal.SIGKILL)


@contextmanager
def own_gunicorn() -> Iterator[tuple[str, OwnWorkers]]:
    """Started on a free port of 127.0.0.1 and stopped at the end: its address, and its workers.

    Raises:
        DoesNotStart: it ended, or did not answer in time.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", "payments_app.proof.gunicorn_child", str(os.getpid()), "-c", "gunicorn.conf.py"],
            cwd=ROOT,
            env=_environment(listener),
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us: what we have begun needs somebody to answer until we have put an end to it.
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            _wait_until_answered(url, process, log.fileno())
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
        "TRUSTED_PROXIES": "1",  # us
        "LOG_LEVEL": "WARNING",
    }
    # The sockets that systemd has handed to whoever started us are not for this one. Nor is what GUNICORN_CMD_ARGS
    # says, which gunicorn puts above our BIND: a live service's socket in it would be taken away from that service.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LISTEN_") and name != "GUNICORN_CMD_ARGS"
    }
    return {**inherited, **ours}


def _wait_until_answered(url: str, process: subprocess.Popen[bytes], log: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            # Closed: a connection that idles would keep a worker that is to stop waiting for more.
            urllib3.request("GET", f"{url}/healthz", headers={"Connection": "close"}, retries=False, timeout=5)
        except HTTPError:
            time.sleep(0.05)
        else:
            return
    what = f"it did not answer within {START_SECONDS} seconds" if process.poll() is None else "it ended"
    lines = os.pread(log, 100_000, 0).decode(errors="replace").splitlines()
    raise DoesNotStart(f"{what}, and said last: {lines[-1] if lines else 'nothing'}")
