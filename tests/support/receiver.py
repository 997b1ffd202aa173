"""A site that receives webhooks over real HTTP, and misbehaves if its path or a test says so."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.support.waiting import PATIENCE_SECONDS

FLOOD_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class Received:
    """One request, whatever became of it."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verify(self, secret: str) -> dict[str, Any]:
        """As receivers do.

        Raises:
            WebhookVerificationError: not signed with this secret, or too long ago.
        """
        verified: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return verified


class Receiver:
    """The last word of a path says how it behaves: ``ok``, ``hang``, ``wait``, ``drip``, ``drip-body``, ``hang-up``,
    ``flood``, ``redirect``, ``no-http``, ``strict``, or a status. ``instead`` changes that for a path meanwhile.

    ``strict`` refuses what cannot be verified by the path's secret; ``accepted`` has the rest.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.accepted: list[Received] = []
        self.secrets: dict[str, str] = {}
        self.instead: dict[str, str] = {}
        self.released = threading.Event()
        self.bytes_sent = 0
        self._lock = threading.Lock()
        self._server = _Server(self)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """From now on, with the certificate of this context."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def at(self, path: str) -> list[Received]:
        with self._lock:
            return [each for each in self.received if each.path == path]

    def take(self, received: Received) -> str:
        with self._lock:
            self.received.append(received)
        behaviour = self.instead.get(received.path, received.path.rpartition("/")[2])
        return self._judge(received) if behaviour == "strict" else behaviour

    def _judge(self, received: Received) -> str:
        try:
            received.verify(self.secrets[received.path])
        except WebhookVerificationError:
            return "400"
        with self._lock:
            self.accepted.append(received)
        return "ok"

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 200

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.receiver = receiver

    def handle_error(self, *_: Any) -> None:
        """A client that went away, or did not like the certificate."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        behaviour = self.server.receiver.take(Received(self.path, headers, body))
        behave = getattr(self, f"_{behaviour.replace('-', '_')}", None)
        with suppress(OSError):
            if behave is not None:
                self.close_connection = True
                behave()
            else:
                self._answer(int(behaviour) if behaviour.isdigit() else 200, {})

    def _hang(self) -> None:
        self.server.receiver.released.wait(PATIENCE_SECONDS)

    def _wait(self) -> None:
        self._hang()
        self._answer(200, {})

    def _drip(self, head: bytes = b"HTTP/1.1 200 OK\r\nX-Padding: ") -> None:
        self.wfile.write(head)
        while not self.server.receiver.released.wait(0.05):
            self.wfile.write(b"x")

    def _drip_body(self) -> None:
        self._drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")

    def _hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def _no_http(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    def _flood(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % FLOOD_BYTES)
        for _ in range(FLOOD_BYTES // 65_536):
            self.server.receiver.bytes_sent += self.connection.send(b"x" * 65_536)

    def _redirect(self) -> None:
        self._answer(302, {"Location": self.server.receiver.url("/elsewhere/ok")})

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass
