"""The HTTP server of the fake gateways: it reads requests, and writes responses or none."""

import json
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Received:
    """A request: its JSON, or its form with the brackets resolved (``metadata[payment_id]=5`` is a dict in a dict)."""

    method: str
    path: str
    params: dict[str, Any]
    idempotency_key: str | None


@dataclass(frozen=True)
class FakeResponse:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


# A request, its Authorization and the client's socket; None closes the connection without a response.
Answering = Callable[[Received, str | None, socket.socket], FakeResponse | None]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # With the default of five, some of twenty clients at once would be refused.
    request_queue_size = 128
    # How far its clock is ahead: every response has a Date.
    clock_ahead_seconds = 0

    def __init__(self, answer: Answering) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close idle connections too: no thread will answer on them any more."""
        super().server_close()
        for connection in list(self._open):
            # The connection's own thread then closes it, or has already done so.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that closes its connection, or is killed, is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    # Head and body are two writes, and the second would wait for the client to acknowledge the first.
    disable_nagle_algorithm = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.server.clock_ahead_seconds)

    def do_GET(self) -> None:
        self._serve(urlsplit(self.path).query)

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def _serve(self, text: str) -> None:
        path = urlsplit(self.path).path
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        params = json.loads(text) if is_json else _resolved(text)
        request = Received(self.command, path, params, self.headers.get("Idempotency-Key"))
        answer = self.server.answer(request, self.headers.get("Authorization"), self.connection)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Request-Id", f"req_{secrets.token_hex(7)}")
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_about: Any) -> None:
        """Tests look at ``received``."""


def _resolved(form: str) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        *outer, last = re.findall(r"[^\[\]]+", name)
        inner = resolved
        for step in outer:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return resolved


def gone(client: socket.socket) -> bool:
    """Whether the client has closed the connection, or the socket is closed here."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
