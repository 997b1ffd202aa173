"""Measures what gunicorn itself takes of a request: ``python -m bench.gunicorn_costs``.

One worker in this process, with an app that does nothing, serves GETs over one kept connection: first by the function
that a thread runs, then with the hand-overs to that thread and back; and as the first, with settings that need no
function call. The three take turns; the result is the least of many batches.
"""

import itertools
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import click
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import TConn, ThreadWorker

from config import WORKER_THREADS

BATCHES = 100
REQUESTS = 100
PATIENCE_SECONDS = 60

REQUEST = (
    b"GET /api/v1/payments/1 HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 203.0.113.7\r\n"
    b"X-Forwarded-Proto: https\r\nAuthorization: Bearer " + b"x" * 200 + b"\r\n\r\n"
)
BODY = b"x" * 700
# As many as this service sends.
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY))), *[("X-Header", "x" * 32)] * 6]


def serve_nothing(_environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", HEADERS)
    return [BODY]


class Worker:
    """A worker with one connection, whose other end is ours."""

    def __init__(self) -> None:
        config = Config()
        for name, value in {"worker_class": "gthread", "threads": WORKER_THREADS, "keepalive": 75}.items():
            config.set(name, value)
        self.config, self._worker = config, ThreadWorker(1, os.getppid(), [], None, 30, config, Logger(config))
        self._worker.wsgi = serve_nothing
        self._client, server = socket.socketpair()
        self._connection = TConn(config, server, ("127.0.0.1", 50_000), ("127.0.0.1", 8_000))
        self._connection.data_ready = True

    def begin_handing_over(self) -> None:
        """Start its threads and its poller, and give the first request to a thread."""
        worker = self._worker
        worker.tpool, worker.poller = worker.get_thread_pool(), selectors.DefaultSelector()
        worker.method_queue.init()
        worker.poller.register(worker.method_queue.fileno(), selectors.EVENT_READ, worker.method_queue.run_callbacks)
        self._client.sendall(REQUEST)
        worker.enqueue_req(self._connection)
        self._wait()

    def handle(self) -> None:
        """Serve a request in this thread."""
        self._client.sendall(REQUEST)
        if not self._worker.handle(self._connection):
            raise SystemExit("gunicorn has closed the connection")
        self._client.recv(65_536)

    def hand_over(self) -> None:
        """Serve a request as gunicorn's main thread does, in a thread of its pool."""
        self._client.sendall(REQUEST)
        self._poll()
        self._wait()

    def _wait(self) -> None:
        while not self._worker.keepalived_conns:
            self._poll()
        self._client.recv(65_536)

    def _poll(self) -> None:
        for key, _ in self._worker.poller.select(PATIENCE_SECONDS):
            key.data(key.fileobj)


@click.command()
def main() -> None:
    """Print the microseconds of processor time of a request."""
    plain, quick, threaded = Worker(), Worker(), Worker()
    # Found as attributes, its settings are not looked up by a method.
    own = {name: setting.get() for name, setting in quick.config.settings.items() if not hasattr(Config, name)}
    vars(quick.config).update(own)
    threaded.begin_handing_over()
    ways = {
        "in one thread": plain.handle,
        "with the hand-overs": threaded.hand_over,
        "in one thread, settings as attributes": quick.handle,
    }
    least = dict.fromkeys(ways, float("inf"))
    for name, serve in itertools.chain.from_iterable(itertools.repeat(list(ways.items()), BATCHES)):
        least[name] = min(least[name], _microseconds(serve))
    for name, microseconds in least.items():
        sys.stdout.write(f"{name:38} {microseconds:5.0f} us\n")


def _microseconds(serve: Callable[[], None]) -> float:
    started = time.process_time()
    for _ in range(REQUESTS):
        serve()
    return (time.process_time() - started) / REQUESTS * 1e6


if __name__ == "__main__":
    main()
