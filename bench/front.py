"""Measures the service through nginx, as it is deployed: ``python -m bench.front``.

Two services with two workers each, on one database and one Redis, and an nginx with the site of deploy/nginx in front
of each: one as gunicorn.conf.py and the site say, and one whose connections to the workers are kept. 32 clients read
payments over TLS, on connections to nginx that they keep. The services are measured in turn, each time behind a new
nginx: which worker accepts a kept connection is chance, and stays as it is.
"""

import itertools
import selectors
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil

from tests.support.apps import app_with
from tests.support.full_stack import PRODUCTION
from tests.support.nginx import Nginx, nginx_for
from tests.support.own_server import own_postgresql
from tests.support.people import People
from tests.support.redis_server import RedisServer
from tests.support.service import connections_of, free_port
from tests.support.socket_activated import SocketActivated
from tests.support.waiting import PATIENCE_SECONDS

PAYMENTS = 100
WARM_UP_SECONDS = 1.0

# How often in a measurement the connections of each worker are counted.
COUNTS = 4

OK = 200

_HEADER_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True)
class Variant:
    """How a service is served: options of gunicorn, and texts of the site with what is there instead."""

    name: str
    options: Sequence[str] = ()
    changes: Mapping[str, str] = field(default_factory=dict)


# What the settings were before workers shared a queue of connections.
KEPT = Variant(
    "kept connections",
    ("--keep-alive", "75", "--worker-connections", "1000"),
    {
        "upstream payments_app {": "upstream payments_app { keepalive 16; keepalive_timeout 60s;",
        "proxy_set_header Connection close;": 'proxy_set_header Connection "";',
    },
)
DEPLOYED = Variant("as deployed")


@dataclass(frozen=True)
class Result:
    """One measurement. ``busier``: the busier worker's share of both workers' processor time."""

    per_second: float
    p50_ms: float
    p99_ms: float
    most_connections: int
    busier: float
    processor_ms: float


class Client:
    """A connection to nginx with one request under way."""

    def __init__(self, nginx: Nginx, tls: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", nginx.https_port), timeout=PATIENCE_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = tls.wrap_socket(plain, server_hostname="127.0.0.1")
        self.socket.setblocking(False)
        self._received = b""
        self._sent_at = 0.0

    def send(self, request: bytes) -> None:
        self._received = b""
        self._sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> float | None:
        """The seconds that the response took, once the whole of it has arrived; else None."""
        try:
            while arrived := self.socket.recv(65536):
                self._received += arrived
        except ssl.SSLWantReadError:
            pass
        else:
            raise SystemExit(f"nginx closed the connection after {self._received!r}")
        head, end, body = self._received.partition(_HEADER_END)
        if not end or len(body) < _content_length(head):
            return None
        if int(head[9:12]) != OK:
            raise SystemExit(f"not a payment: {self._received!r}")
        return time.perf_counter() - self._sent_at


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(_LENGTH)
    return int(rest.split(b"\r\n", 1)[0])


@dataclass(frozen=True)
class RunningService:
    """A running service, and what is asked of it."""

    variant: Variant
    service: SocketActivated
    requests: Sequence[bytes]

    def measure(self, clients: int, seconds: float) -> Result:
        """Send requests for some seconds, behind a new nginx."""
        with tempfile.TemporaryDirectory(prefix="bench-front-") as name:
            folder = Path(name)
            folder.chmod(0o755)  # nginx's workers are another user if root starts nginx
            with nginx_for(self.service.path, folder, free_port(), self.variant.changes) as nginx:
                return self._measure(nginx, clients, seconds)

    def _measure(self, nginx: Nginx, clients: int, seconds: float) -> Result:
        counts: list[int] = []
        before = self._processor_seconds()
        began = time.perf_counter()
        latencies = _send(nginx, self.requests, clients, seconds, lambda: counts.extend(self._connections()))
        took = time.perf_counter() - began
        used = [after - before[pid] for pid, after in self._processor_seconds().items()]
        percentiles = statistics.quantiles(latencies, n=100)
        return Result(
            per_second=len(latencies) / took,
            p50_ms=percentiles[49] * 1000,
            p99_ms=percentiles[98] * 1000,
            most_connections=max(counts),
            busier=max(used) / sum(used),
            processor_ms=sum(used) / len(latencies) * 1000,
        )

    def _connections(self) -> list[int]:
        return list(connections_of(self.service.pid, self.service.path).values())

    def _processor_seconds(self) -> dict[int, float]:
        times = {pid: psutil.Process(pid).cpu_times() for pid in self.service.workers()}
        return {pid: spent.user + spent.system for pid, spent in times.items()}


def _send(
    nginx: Nginx, requests: Sequence[bytes], clients: int, seconds: float, count: Callable[[], None]
) -> list[float]:
    """Send requests for some seconds; returns the seconds that each response took. ``count`` is called meanwhile."""
    following = itertools.cycle(requests)
    tls = nginx.tls()
    latencies: list[float] = []
    with ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        connected = [Client(nginx, tls) for _ in range(clients)]
        for client in connected:
            stack.callback(client.socket.close)
            waiting.register(client.socket, selectors.EVENT_READ, client)
        ends_at = time.perf_counter() + seconds
        counts_at = [ends_at - seconds * number / (COUNTS + 1) for number in range(1, COUNTS + 1)]
        for client in connected:
            client.send(next(following))
        under_way = clients
        while under_way:
            ready = waiting.select(PATIENCE_SECONDS)
            if not ready:
                raise SystemExit(f"no response for {PATIENCE_SECONDS} s")
            for event, _ in ready:
                took = event.data.receive()
                if took is None:
                    continue
                latencies.append(took)
                if time.perf_counter() < ends_at:
                    event.data.send(next(following))
                else:
                    under_way -= 1
            if counts_at and time.perf_counter() > counts_at[-1]:
                counts_at.pop()
                count()
    return latencies


@contextmanager
def _running(variants: Sequence[Variant]) -> Iterator[list[RunningService]]:
    """Start the services, all on one database with payments."""
    secrets = {name: PRODUCTION[name] for name in ("SECRET_KEY", "JWT_SECRET_KEY")}
    with ExitStack() as stack:
        database = stack.enter_context(own_postgresql())
        redis = RedisServer()
        stack.callback(redis.close)
        app = stack.enter_context(app_with(database.url, LOG_LEVEL="ERROR", **secrets))
        patient = People(app, patient=range(1, PAYMENTS + 1)).patient
        requests = []
        for consultation_id in range(1, PAYMENTS + 1):
            payment_id = patient.pay(consultation_id).json["data"]["payment_id"]
            head = f"GET /api/v1/payments/{payment_id} HTTP/1.1\r\nHost: payments.example.org\r\n"
            requests.append(f"{head}Authorization: Bearer {patient.token}\r\n\r\n".encode())
        environment = {**PRODUCTION, "DATABASE_URL": database.url, **redis.settings}
        services = []
        for variant in variants:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-front-")))
            folder.chmod(0o755)
            # No worker is replaced during a measurement.
            service = SocketActivated(folder, "--max-requests", "0", *variant.options, **environment)
            service.start()
            stack.callback(service.close)
            services.append(RunningService(variant, service, requests))
        yield services


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.5), default=2.0, show_default=True, help="Seconds per round.")
@click.option("--clients", type=click.IntRange(1, 96), default=32, show_default=True)
def main(rounds: int, seconds: float, clients: int) -> None:
    """Print what reads through nginx cost, with kept connections and as deployed, and the ratios of each round."""
    with _running((KEPT, DEPLOYED)) as services:
        for service in services:
            service.measure(clients, WARM_UP_SECONDS)
        results: dict[str, list[Result]] = {service.variant.name: [] for service in services}
        with click.progressbar(range(rounds), label="Measuring", file=sys.stderr) as bar:
            for number in bar:
                for service in services[:: -1 if number % 2 else 1]:
                    results[service.variant.name].append(service.measure(clients, seconds))
    click.echo(f"{clients} clients, {rounds} rounds of {seconds:g} s each; medians (least to greatest)\n")
    click.echo(_table(results))


COLUMNS: Mapping[str, tuple[str, str]] = {
    "GETs per second": ("per_second", ".0f"),
    "p50 ms": ("p50_ms", ".0f"),
    "p99 ms": ("p99_ms", ".0f"),
    "most connections of a worker": ("most_connections", ".0f"),
    "the busier worker's share of the time": ("busier", ".2f"),
    "processor ms of the workers per GET": ("processor_ms", ".2f"),
}


def _table(results: Mapping[str, Sequence[Result]]) -> str:
    """Markdown: a row for each column of ``COLUMNS``, and last the ratio of the second variant to the first."""
    before, after = results.values()
    lines = [f"| | {' | '.join(results)} | ratio |", "|---|---:|---:|---:|"]
    for title, (name, form) in COLUMNS.items():
        values = [[getattr(result, name) for result in variant] for variant in (before, after)]
        ratios = [mine / its for its, mine in zip(*values, strict=True)]
        cells = [*(_spread(numbers, form) for numbers in values), _spread(ratios, ".2f")]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(numbers: Sequence[float], form: str) -> str:
    return f"{statistics.median(numbers):{form}} ({min(numbers):{form}} to {max(numbers):{form}})"


if __name__ == "__main__":
    main()
