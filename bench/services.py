"""Ours and the peers as running services, each on two worker processes."""

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

from bench.environment import Stage
from tests.support.apps import PRODUCTION
from tests.support.databases import ROOT
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until_answered

# All that a service has of the environment that the benchmark is run in: no setting of somebody's service gets in.
_SURROUNDINGS = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}

# As many as gunicorn.conf.py gives to each of our workers.
THREADS = 8


@dataclass(frozen=True)
class Running:
    """A service that answers: where, and the process that all of its processes descend from."""

    url: str
    pid: int

    how_many_workers: int = 2

    @cached_property
    def workers(self) -> list[int]:
        """The processes that accept connections: those that it forked and that listen where it does."""
        port = urlparse(self.url).port
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            children = psutil.Process(self.pid).children(recursive=True)
            found = [
                child.pid for child in children if any(its.laddr.port == port for its in child.net_connections("tcp"))
            ]
            if len(found) == self.how_many_workers:
                return found
            time.sleep(0.05)
        raise SystemExit(f"{self.url} has not got its {self.how_many_workers} workers in {PATIENCE_SECONDS} s")


# As operators run it, but for the rate limit and the replacing of workers (below): log lines of JSON, behind a proxy
# that speaks HTTPS. The key of Stripe is never used: to create a payment nobody is asked.
AS_IN_PRODUCTION = {
    **PRODUCTION,
    "TRUSTED_PROXIES": "1",
    "STRIPE_API_KEY": "sk_test_never_asked",
    "RATELIMIT_ENABLED": "false",
}


@contextmanager
def ours(database_url: str, *, workers: int = 2) -> Iterator[Running]:
    """This project's, as gunicorn.conf.py serves it."""
    port = free_port()
    # No worker is replaced in mid-measurement, as after 100,000 requests it would be.
    command = ["gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "--max-requests", "0"]
    settings = {"DATABASE_URL": database_url, "PORT": str(port), "WEB_CONCURRENCY": str(workers)}
    with _started(command, port, **AS_IN_PRODUCTION, **settings) as running:
        yield replace(running, how_many_workers=workers)


@contextmanager
def flask_peer(stage: Stage, module: str, *, threads: int = THREADS, **environment: str) -> Iterator[Running]:
    """By gunicorn with threads, which logs a line for every request, as it does for ours."""
    port = free_port()
    command = [
        *("gunicorn", f"bench.peers.{module}:app", "--bind", f"127.0.0.1:{port}", "--no-control-socket"),
        *("--worker-class", "gthread", "--workers", "2", "--threads", str(threads), "--keep-alive", "75"),
        *("--access-logfile", "-"),
    ]
    with _started(command, port, THREADS=str(threads), **_of(stage), **environment) as running:
        yield running


@contextmanager
def fastapi_peer(stage: Stage, module: str) -> Iterator[Running]:
    """By uvicorn on uvloop and httptools, which logs a line for every request by default."""
    port = free_port()
    command = [
        *("uvicorn", f"bench.peers.{module}:app", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
        *("--loop", "uvloop", "--http", "httptools", "--timeout-keep-alive", "75"),
    ]
    with _started(command, port, **_of(stage)) as running:
        yield running


def _of(stage: Stage) -> dict[str, str]:
    return {"DATABASE_URL": stage.empty.url, "JWT_SECRET_KEY": PRODUCTION["JWT_SECRET_KEY"]}


@contextmanager
def _started(command: list[str], port: int, **environment: str) -> Iterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="bench-service-"))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,  # away from our gunicorn.conf.py, which is for ours alone
            env={**_SURROUNDINGS, "PYTHONPATH": str(ROOT), **environment},
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
