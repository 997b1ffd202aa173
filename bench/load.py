"""The client: sends requests as fast as the service responds, over keep-alive connections, from one thread.

The client shares the cores with the service, so it does very little: the requests are bytes before it starts, and it
only reads the status and the length of a response. It takes as little processor time as wrk, which needs a script to
generate requests. One client for all services keeps the results comparable.
"""

import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import quantiles
from urllib.parse import urlparse

import psutil

from bench.services import Running

# Seconds; far longer than any response takes, so that only a broken service exceeds it.
PATIENCE_SECONDS = 60

# Attempts per connection to distribute the connections evenly over the workers.
MAX_ATTEMPTS = 100

# The requests of one connection: each is sent when the one before it has its response, whose body it may use.
Script = Generator[bytes, bytes, None]

_HEADER_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True)
class Load:
    """The result: number of responses by status, total seconds, and percentiles of the response time."""

    statuses: dict[int, int]
    seconds: float
    p50_seconds: float
    p99_seconds: float

    @property
    def responses(self) -> int:
        return sum(self.statuses.values())


def send(
    running: Running,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    begin: Callable[[], None] = lambda: None,
) -> Load:
    """Send requests for some seconds, each one once, so there must be enough of them.

    ``begin`` is called when all clients are connected, before the first request.
    """
    remaining = iter(requests)

    def script(ends_at: float) -> Script:
        while time.perf_counter() < ends_at and (request := next(remaining, None)) is not None:
            yield request

    result = send_scripts(running, script, clients=clients, seconds=seconds, begin=begin)
    if seconds != float("inf") and next(remaining, None) is None:
        raise SystemExit("all requests were sent before the time was over: prepare more of them")
    return result


def send_all(running: Running, requests: Sequence[bytes], *, clients: int) -> Load:
    """Send all requests and wait for their responses."""
    return send(running, requests, clients=clients, seconds=float("inf"))


def send_scripts(
    running: Running,
    script: Callable[[float], Script],
    *,
    clients: int,
    seconds: float,
    begin: Callable[[], None] = lambda: None,
) -> Load:
    """Send the requests of one script for each client. ``script`` takes the time at which it should end."""
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    with selectors.DefaultSelector() as waiting:
        connections = _connect(running, clients, waiting)
        begin()
        started = time.perf_counter()
        under_way = sum(connection.start(script(started + seconds)) for connection in connections)
        while under_way:
            ready = waiting.select(PATIENCE_SECONDS)
            if not ready:
                raise SystemExit(f"no response from {running.url} for {PATIENCE_SECONDS} s")
            for event, _ in ready:
                response = event.data.receive()
                if response is not None:
                    status, latency, body = response
                    statuses[status] += 1
                    latencies.append(latency)
                    under_way += event.data.send_next(body) - 1
        took = time.perf_counter() - started
    for connection in connections:
        connection.socket.close()
    percentiles = quantiles(latencies, n=100)
    return Load(dict(statuses), took, percentiles[49], percentiles[98])


class _Connection:
    """One keep-alive connection with one request under way."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._script: Script
        self._received = b""
        self._sent_at = 0.0

    def start(self, script: Script) -> bool:
        """Send the first request of a script; False if it has none."""
        self._script = script
        return self.send_next(None)

    def send_next(self, body: bytes | None) -> bool:
        """Send the request that follows the response with this body; False if there is none."""
        try:
            request = self._script.send(body)  # type: ignore[arg-type]  # None starts it
        except StopIteration:
            return False
        self._received = b""
        self._sent_at = time.perf_counter()
        self.socket.sendall(request)
        return True

    def receive(self) -> tuple[int, float, bytes] | None:
        """Status, seconds and body, once the whole response has arrived; else None."""
        arrived = self.socket.recv(65536)
        if not arrived:
            raise SystemExit(f"the service closed the connection after {self._received!r}")
        self._received += arrived
        head, end, body = self._received.partition(_HEADER_END)
        if not end or len(body) < _content_length(head):
            return None
        return int(head[9:12]), time.perf_counter() - self._sent_at, body


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(_LENGTH) + len(_LENGTH)
    return int(lowered[start:].split(b"\r\n", 1)[0])


def _connect(running: Running, clients: int, waiting: selectors.BaseSelector) -> list[_Connection]:
    """Open the same number of connections to each worker; otherwise the result would depend on chance.

    The kernel chooses the worker that accepts a connection. If that worker has enough connections, this one is closed.
    """
    parts = urlparse(running.url)
    workers = {pid: ceil(clients / len(running.workers)) for pid in running.workers}
    connections: list[_Connection] = []
    for _ in range(MAX_ATTEMPTS * clients):
        connection = _Connection((str(parts.hostname), int(parts.port or 80)))
        worker = _accepting(connection, workers)
        if not workers[worker]:
            connection.socket.close()
            continue
        workers[worker] -= 1
        waiting.register(connection.socket, selectors.EVENT_READ, connection)
        connections.append(connection)
        if len(connections) == clients:
            return connections
    raise SystemExit(f"one worker of {running.url} takes all connections")


def _accepting(connection: _Connection, workers: Iterable[int]) -> int:
    """The pid of the worker that accepted the connection."""
    port = connection.socket.getsockname()[1]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for pid in workers:
            if any(its.raddr and its.raddr.port == port for its in psutil.Process(pid).net_connections("tcp")):
                return pid
    raise SystemExit(f"no worker accepts a connection for {PATIENCE_SECONDS} s")
