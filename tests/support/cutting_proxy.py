"""A proxy between a browser and the service that can lose requests or responses, hang, or respond by itself."""

import http.client
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from tests.support.waiting import PATIENCE_SECONDS

Mode = Literal["lose_request", "lose_answer", "halve_answer", "silent_before", "silent_after", "answer_instead"]

# Headers of one connection, which a proxy does not pass on.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass(frozen=True)
class Canned:
    """A response that the proxy sends by itself."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


# An empty document at the service's origin, sent by the proxy: without scripts and Content-Security-Policy.
EMPTY_PAGE = "/empty-page"
_EMPTY = Canned(200, b'<!doctype html><link rel="icon" href="data:,">', {"Content-Type": "text/html"})


@dataclass
class Trouble:
    """A fault for the next requests of a kind; ``left`` counts them down, None is for all of them."""

    mode: Mode
    method: str
    path: str
    left: int | None
    answer: Canned | None

    def concerns(self, method: str, path: str) -> bool:
        return self.left != 0 and method == self.method and path.startswith(self.path)


@dataclass(frozen=True)
class SeenRequest:
    """A request that arrived at the proxy, passed on or not."""

    method: str
    path: str
    key: str | None
    body: bytes


class CuttingProxy(ThreadingHTTPServer):
    """Each connection serves one request: a browser repeats a POST by itself if a reused connection breaks."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._changed = threading.Condition()
        self._troubles: list[Trouble] = []
        self._silent = 0
        self.seen: list[SeenRequest] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def misbehave(
        self,
        mode: Mode,
        *,
        method: str = "POST",
        path: str = "/api/v1/payments",
        times: int | None = 1,
        answer: Canned | None = None,
    ) -> None:
        """Do so with the next ``times`` requests whose path begins with ``path``; None is for all of them.

        - ``lose_request``: close the connection; pass nothing on.
        - ``lose_answer``: pass it on, wait for the response, and close the connection.
        - ``halve_answer``: the same, but send half of the body first.
        - ``silent_before``, ``silent_after``: send nothing until ``behave()``, then close; not passed on, or passed on.
        - ``answer_instead``: respond with ``answer``; pass nothing on.
        """
        assert mode in get_args(Mode)
        with self._changed:
            self._troubles.append(Trouble(mode, method, path, times, answer))

    def turn_to(self, upstream: str) -> None:
        """Pass on to another service from now on."""
        self.upstream = urlsplit(upstream).netloc

    def behave(self) -> None:
        """Pass on all requests from now on, close connections that wait, and clear ``seen``."""
        with self._changed:
            self._troubles.clear()
            self.seen = []
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._silent == 0, PATIENCE_SECONDS)

    def wait_until_silent(self, count: int = 1) -> None:
        """Wait until so many requests hang."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._silent >= count, PATIENCE_SECONDS)

    def posts(self, path: str = "/api/v1/payments") -> list[SeenRequest]:
        return self._requests("POST", path)

    def gets(self, path: str) -> list[SeenRequest]:
        return self._requests("GET", path)

    def _requests(self, method: str, path: str) -> list[SeenRequest]:
        with self._changed:
            return [seen for seen in self.seen if seen.method == method and seen.path.startswith(path)]

    def note(self, seen: SeenRequest) -> Trouble | None:
        """Add a request to ``seen``; returns the fault that it meets, if any."""
        with self._changed:
            self.seen.append(seen)
            self._changed.notify_all()
            for trouble in self._troubles:
                if trouble.concerns(seen.method, seen.path):
                    trouble.left = None if trouble.left is None else trouble.left - 1
                    return trouble
        return None

    def be_silent(self) -> None:
        with self._changed:
            self._silent += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._troubles, PATIENCE_SECONDS)
            self._silent -= 1
            self._changed.notify_all()

    def pass_on(self, seen: SeenRequest, headers: dict[str, str]) -> Canned:
        connection = http.client.HTTPConnection(self.upstream, timeout=PATIENCE_SECONDS)
        try:
            connection.request(seen.method, seen.path, seen.body or None, headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            return Canned(answer.status, answer.read(), kept)
        finally:
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes its connection is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: CuttingProxy
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        seen = SeenRequest(self.command, self.path, self.headers.get("Idempotency-Key"), body)
        trouble = self.server.note(seen)
        mode = trouble.mode if trouble else None
        answer = trouble.answer if trouble else None
        if self.path == EMPTY_PAGE:
            answer = _EMPTY
        elif mode not in ("lose_request", "silent_before", "answer_instead"):
            answer = self.server.pass_on(seen, dict(self.headers.items()))
        if mode in ("silent_before", "silent_after"):
            self.server.be_silent()
        elif mode not in ("lose_request", "lose_answer"):
            assert answer is not None
            self._answer(answer, cut_to=len(answer.body) // 2 if mode == "halve_answer" else None)

    def _answer(self, answer: Canned, *, cut_to: int | None) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body[:cut_to])

    def log_message(self, *_about: Any) -> None:
        """Tests look at ``seen``."""


@contextmanager
def proxy_to(upstream: str) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.behave()
        proxy.shutdown()
        proxy.server_close()
