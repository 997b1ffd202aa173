"""Starts this service and its peers, each with two worker processes."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import urlparse

import psutil

from bench.environment import Environment
from bench.gateway import Gateway
from tests.support.apps import PRODUCTION
from tests.support.databases import ROOT
from tests.support.fake_stripe import FakeStripe
from tests.support.redis_server import RedisServer
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until_answered

# The only environment variables that a service inherits: no setting of another service must get in.
_INHERITED = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}

# Per worker, as in gunicorn.conf.py.
THREADS = 8


@dataclass(frozen=True)
class Running:
    """A running service: its URL, the pid of its parent process, and the file with its output."""

    url: str
    pid: int
    log: Path

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


WEBHOOK_SECRET = {"STRIPE_WEBHOOK_SECRET": FakeStripe.webhook_secret}

# As in production (JSON log lines, behind an HTTPS proxy), but without the rate limit and the replacement of workers
# (below). The Stripe key is never used: neither creating a payment nor its webhook calls the gateway. Refunds are those
# of payments by the sandbox, which answers at once.
AS_IN_PRODUCTION = {
    **PRODUCTION,
    "TRUSTED_PROXIES": "1",
    "STRIPE_API_KEY": "sk_test_never_used",
    **WEBHOOK_SECRET,
    "STRIPE_CHECKOUT": "elements",
    "ALLOW_SANDBOX_GATEWAY": "1",
    "RATELIMIT_ENABLED": "false",
}


@contextmanager
def ours(database_url: str, settings: Mapping[str, str] | None = None, *, workers: int = 2) -> Iterator[Running]:
    """Start this service with gunicorn.conf.py, and these settings besides."""
    port = free_port()
    command = [
        *("gunicorn", "--config", str(ROOT / "gunicorn.conf.py")),
        # No worker is replaced during a measurement, as it would be after 100,000 requests.
        *("--max-requests", "0"),
        # There is no nginx here that keeps the clients' connections: as for the other services, gunicorn does.
        *("--keep-alive", "75", "--worker-connections", "1000"),
    ]
    own = {"DATABASE_URL": database_url, "PORT": str(port), "WEB_CONCURRENCY": str(workers)}
    with _started(command, port, **{**AS_IN_PRODUCTION, **own, **(settings or {})}) as running:
        yield replace(running, worker_count=workers)


@contextmanager
def granian(database_url: str) -> Iterator[Running]:
    """Start this service with granian instead of gunicorn: as many processes, and threads for requests."""
    port = free_port()
    command = [
        *("granian", "--interface", "wsgi", "wsgi:app", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "2", "--blocking-threads", str(THREADS), "--no-ws"),
    ]
    with _started(command, port, **AS_IN_PRODUCTION, DATABASE_URL=database_url) as running:
        yield running


def as_deployed(redis: RedisServer) -> dict[str, str]:
    """The settings of docs/deployment.md besides those above: Redis, rate limits, and the health listener.

    The limits are so high that no request is refused. Redis has more time than its 100 ms: on a busy machine the
    service would else go on without it now and then, and be measured without it.
    """
    return {
        **redis.settings,
        "RATELIMIT_ENABLED": "true",
        "RATELIMIT_PAYMENTS": "999999999 per minute",
        "HEALTH_BIND": f"127.0.0.1:{free_port()}",
    }


def with_gateway(gateway: Gateway) -> dict[str, str]:
    """Settings with which cards are carried by the look-alike of Stripe.

    In development, because production calls a gateway by HTTPS only; so log lines are text, which takes longer.
    """
    return {"APP_ENV": "development", "STRIPE_API_KEY": FakeStripe.api_key, "STRIPE_API_BASE": gateway.url}


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
def fastapi_peer(environment: Environment, module: str, *options: str, **variables: str) -> Iterator[Running]:
    """Start a FastAPI peer: uvicorn with uvloop and httptools; it logs a line per request by default."""
    port = free_port()
    command = [
        *("uvicorn", f"bench.peers.{module}:app", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
        *("--loop", "uvloop", "--http", "httptools", "--timeout-keep-alive", "75", *options),
    ]
    with _started(command, port, **_variables(environment), **variables) as running:
        yield running


@contextmanager
def fastapi_peer_with_duties(environment: Environment) -> Iterator[Running]:
    """Start the FastAPI peer on asyncpg with this service's duties: it logs its requests itself, as this one does."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-metrics-") as folder,
        fastapi_peer(
            environment, "fastapi_asyncpg_duties", "--no-access-log", PROMETHEUS_MULTIPROC_DIR=folder
        ) as running,
    ):
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
        running = Running(f"http://127.0.0.1:{port}", process.pid, log)
        wait_until_answered(running.url, process, log)
        yield running
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
