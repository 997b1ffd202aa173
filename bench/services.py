"""Starts this service and its peers, each with two worker processes."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import urlparse

import psutil

from bench.environment import Environment
from tests.support.apps import PRODUCTION
from tests.support.databases import ROOT
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until_answered

# The only environment variables that a service inherits: no setting of another service must get in.
_INHERITED = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}

# Per worker, as in gunicorn.conf.py.
THREADS = 8


@dataclass(frozen=True)
class Running:
    """A running service: its URL, and the pid of its parent process."""

    url: str
    pid: int

    worker_count: int = 2

    @cached_property
    def workers(self) -> list[int]:
        """The pids of the worker processes: the children that listen on the port."""
        port = urlparse(self.url).port
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            children = psutil.Process(self.pid).children(recursive=True)
            found = [
                child.pid for child in children if any(its.laddr.port == port for its in child.net_connections("tcp"))
            ]
            if len(found) == self.worker_count:
                return found
            time.sleep(0.05)
        raise SystemExit(f"{self.url} does not have {self.worker_count} workers after {PATIENCE_SECONDS} s")


# As in production (JSON log lines, behind an HTTPS proxy), but without the rate limit and the replacement of workers
# (below). The Stripe key is never used: creating a payment calls no gateway.
AS_IN_PRODUCTION = {
    **PRODUCTION,
    "TRUSTED_PROXIES": "1",
    "STRIPE_API_KEY": "sk_test_never_used",
    "STRIPE_CHECKOUT": "elements",
    "RATELIMIT_ENABLED": "false",
}


@contextmanager
def ours(database_url: str, *, workers: int = 2) -> Iterator[Running]:
    """Start this service with gunicorn.conf.py."""
    port = free_port()
    # No worker is replaced during a measurement, as it would be after 100,000 requests.
    command = ["gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "--max-requests", "0"]
    settings = {"DATABASE_URL": database_url, "PORT": str(port), "WEB_CONCURRENCY": str(workers)}
    with _started(command, port, **AS_IN_PRODUCTION, **settings) as running:
        yield replace(running, worker_count=workers)


@contextmanager
def flask_peer(environment: Environment, module: str, *, threads: int = THREADS, **variables: str) -> Iterator[Running]:
    """Start a Flask peer: gunicorn with threads, and a log line per request, as for this service."""
    port = free_port()
    command = [
        *("gunicorn", f"bench.peers.{module}:app", "--bind", f"127.0.0.1:{port}", "--no-control-socket"),
        *("--worker-class", "gthread", "--workers", "2", "--threads", str(threads), "--keep-alive", "75"),
        *("--access-logfile", "-"),
    ]
    with _started(command, port, THREADS=str(threads), **_variables(environment), **variables) as running:
        yield running


@contextmanager
def fastapi_peer(environment: Environment, module: str) -> Iterator[Running]:
    """Start a FastAPI peer: uvicorn with uvloop and httptools; it logs a line per request by default."""
    port = free_port()
    command = [
        *("uvicorn", f"bench.peers.{module}:app", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
        *("--loop", "uvloop", "--http", "httptools", "--timeout-keep-alive", "75"),
    ]
    with _started(command, port, **_variables(environment)) as running:
        yield running


def _variables(environment: Environment) -> dict[str, str]:
    return {"DATABASE_URL": environment.empty.url, "JWT_SECRET_KEY": PRODUCTION["JWT_SECRET_KEY"]}


@contextmanager
def _started(command: list[str], port: int, **variables: str) -> Iterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="bench-service-"))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,  # not the project's folder, whose gunicorn.conf.py peers must not read
            env={**_INHERITED, "PYTHONPATH": str(ROOT), **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Running(f"http://127.0.0.1:{port}", process.pid)
        wait_until_answered(running.url, process, log)
        yield running
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
