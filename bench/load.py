"""Asking a service as quickly as it answers, over keep-alive connections, from one thread.

The client shares the cores with what it measures, so it does next to nothing: the requests are bytes before it starts,
and of an answer it reads the status and the length. That takes it as little of the processor as wrk, which a script has
to make the requests for, and one client everywhere keeps results comparable.
"""

import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import quantiles
from urllib.parse import urlparse

import psutil

from bench.services import Running

# Seconds; far more than any answer takes, so that only something broken runs into it.
PATIENCE_SECONDS = 60

# For each connection that is kept, before it is given up that all workers get their share.
MOST_ATTEMPTS = 100

_HEADER_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True)
class Load:
    """What came of asking: how often each status was answered, in how many seconds, and how long an answer took."""

    statuses: dict[int, int]
    seconds: float
    p50_seconds: float
    p99_seconds: float

    @property
    def answers(self) -> int:
        return sum(self.statuses.values())


def ask(
    running: Running,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    begin: Callable[[], None] = lambda: None,
) -> Load:
    """Ask for so many seconds; each request once, so there have to be enough of them.

    ``begin`` is called when all are connected, before the first request.
    """
    left = iter(requests)
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    with selectors.DefaultSelector() as waiting:
        connections = _connect(running, clients, waiting)
        begin()
        started = time.perf_counter()
        ends_at = started + seconds
        under_way = sum(_ask_next(connection, left, ends_at) for connection in connections)
        while under_way:
            ready = waiting.select(PATIENCE_SECONDS)
            if not ready:
                raise SystemExit(f"no answer from {running.url} for {PATIENCE_SECONDS} s")
            for event, _ in ready:
                answered = event.data.receive()
                if answered is not None:
                    statuses[answered[0]] += 1
                    latencies.append(answered[1])
                    under_way += _ask_next(event.data, left, ends_at) - 1
        took = time.perf_counter() - started
    for connection in connections:
        connection.socket.close()
    _require_enough(left, ends_at)
    percentiles = quantiles(latencies, n=100)
    return Load(dict(statuses), took, percentiles[49], percentiles[98])


def ask_all(running: Running, requests: Sequence[bytes], *, clients: int) -> Load:
    """Ask until every request has been answered."""
    return ask(running, requests, clients=clients, seconds=float("inf"))


class _Connection:
    """One keep-alive connection with one request under way."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._asked_at = 0.0

    def send(self, request: bytes) -> None:
        self._received = b""
        self._asked_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> tuple[int, float] | None:
        """Status and seconds, once the whole answer is there."""
        arrived = self.socket.recv(65536)
        if not arrived:
            raise SystemExit(f"the service hung up after {self._received!r}")
        self._received += arrived
        head, end, body = self._received.partition(_HEADER_END)
        if not end or len(body) < _content_length(head):
            return None
        return int(head[9:12]), time.perf_counter() - self._asked_at


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(_LENGTH) + len(_LENGTH)
    return int(lowered[start:].split(b"\r\n", 1)[0])


def _connect(running: Running, clients: int, waiting: selectors.BaseSelector) -> list[_Connection]:
    """As many connections to one worker as to the other, else chance decides how much of a machine a service uses.

    Which worker accepts a connection is the kernel's choice, and a connection stays with it: one that is too many is
    closed again.
    """
    parts = urlparse(running.url)
    workers = {pid: ceil(clients / len(running.workers)) for pid in running.workers}
    connections: list[_Connection] = []
    for _ in range(MOST_ATTEMPTS * clients):
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
    """The worker that has the other end."""
    port = connection.socket.getsockname()[1]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for pid in workers:
            if any(its.raddr and its.raddr.port == port for its in psutil.Process(pid).net_connections("tcp")):
                return pid
    raise SystemExit(f"nobody accepts a connection for {PATIENCE_SECONDS} s")


def _ask_next(connection: _Connection, left: Iterator[bytes], ends_at: float) -> bool:
    if time.perf_counter() >= ends_at:
        return False
    request = next(left, None)
    if request is None:
        return False
    connection.send(request)
    return True


def _require_enough(left: Iterator[bytes], ends_at: float) -> None:
    if ends_at != float("inf") and next(left, None) is None:
        raise SystemExit("the requests were used up before the time was: prepare more of them")
