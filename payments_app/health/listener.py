"""The program that answers ``/healthz`` and ``/readyz`` on ``HEALTH_BIND``, whatever the request threads do.

gunicorn's master runs it as a process of its own (``supervisor.py``). It uses the standard library only, so it starts
at once, takes little memory, and knows no secret. It asks the service in the background, by the port of all requests,
and answers from what it knows: nobody who asks it waits for the service.

Arguments: the descriptor of the listening socket, the master's process id, and the service's address as JSON (the path
of a Unix socket, or host and port).
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Address = str | tuple[str, int]

# Seconds between two questions to the service. While something is wrong it is asked more often, so that its recovery
# is seen at once.
PERIOD_SECONDS = 5
PERIOD_AFTER_FAULT_SECONDS = 1

# Seconds to wait for the service's response. /healthz does nothing: if it takes longer, requests wait for a thread.
# /readyz may wait for the database, which has its own limits (a connection 3 s, a statement 5 s).
DEADLINES_SECONDS = {"/healthz": 2, "/readyz": 8}

# Seconds. An older result is no result: longer than a period and a deadline.
OLDEST_SECONDS = 15

# Seconds between two looks at the master: this process ends soon after it.
LOOK_AFTER_MASTER_SECONDS = 0.25

# Seconds that a client has to send its request.
CLIENT_SECONDS = 2

# Connections at once; more are closed. A client sends one request on each.
MOST_CONNECTIONS = 32

# The same as of other 503 responses of the service (payments_app/errors.py).
RETRY_AFTER_SECONDS = 2

# Bytes of a response of the service; more than the longest one.
MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """What the service answered to one question. ``fault``: why there is no answer, else empty."""

    # Monotonic: when the service was asked.
    at: float
    status: int = 0
    body: Mapping[str, Any] | None = None
    fault: str = ""

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.at


class Poller(threading.Thread):
    """Asks the service for one path, again and again."""

    def __init__(self, address: Address, path: str) -> None:
        super().__init__(name=path, daemon=True)
        self._address, self._path = address, path
        self._deadline_seconds = DEADLINES_SECONDS[path]
        self.latest = ServiceResponse(time.monotonic(), fault="was not asked yet")

    def run(self) -> None:
        while True:
            self.latest = self._ask()
            is_good = self.latest.status == HTTPStatus.OK
            time.sleep(PERIOD_SECONDS if is_good else PERIOD_AFTER_FAULT_SECONDS)

    @property
    def fault(self) -> str:
        """Why the last answer is none; empty if it is one."""
        age_seconds = self.latest.age_seconds
        if age_seconds > OLDEST_SECONDS:
            return f"the last answer is {age_seconds:.0f} s old"
        return self.latest.fault

    def _ask(self) -> ServiceResponse:
        at = time.monotonic()
        try:
            with _connect(self._address, self._deadline_seconds) as link:
                connection = HTTPConnection("localhost")
                connection.sock = link
                headers = {"Connection": "close", "User-Agent": "payments-health"}
                connection.request("GET", self._path, headers=headers)
                response = connection.getresponse()
                body = json.loads(response.read(MOST_BYTES))
        except TimeoutError:
            return ServiceResponse(at, fault=f"no response to {self._path} within {self._deadline_seconds} s")
        except (OSError, HTTPException, ValueError) as error:
            return ServiceResponse(at, fault=f"no response to {self._path}: {type(error).__name__}")
        return ServiceResponse(at, response.status, body if isinstance(body, dict) else {})


def _connect(address: Address, timeout_seconds: float) -> socket.socket:
    if not isinstance(address, str):
        return socket.create_connection(address, timeout_seconds)
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(timeout_seconds)
    try:
        link.connect(address)
    except OSError:
        link.close()
        raise
    return link


class Health:
    """What is known of the service."""

    def __init__(self, address: Address) -> None:
        self.is_stopping = False
        self._requests = Poller(address, "/healthz")
        self._readiness = Poller(address, "/readyz")
        self._requests.start()
        self._readiness.start()

    def faults(self) -> dict[str, str]:
        """The failed checks: name and reason."""
        if self.is_stopping:
            return {"stopping": "the service is stopping"}
        if self._requests.fault:
            return {"requests": f"requests starve: {self._requests.fault}"}
        if self._readiness.fault:
            return {"readiness": self._readiness.fault}
        if self._readiness.latest.status == HTTPStatus.OK:
            return {}
        data = (self._readiness.latest.body or {}).get("data")
        failed = data.get("failed") if isinstance(data, dict) else None
        return dict.fromkeys(failed or ["readiness"], "the service's own check failed")

    def readiness(self) -> tuple[HTTPStatus, dict[str, Any]]:
        """The response to ``/readyz``. ``age_seconds``: the age of what the service said of its own checks."""
        faults = self.faults()
        latest = self._readiness.latest
        age_seconds = round(latest.age_seconds, 1)
        if not faults:
            body = latest.body or {}
            parts = {**body.get("parts", {}), "requests": "ok"}
            return HTTPStatus.OK, {"status": body.get("status", "ok"), "parts": parts, "age_seconds": age_seconds}
        text = "The service is not ready to take payments; please send the same request again later."
        problem = {
            "type": "/problems/not-ready",
            "title": "Not ready",
            "status": HTTPStatus.SERVICE_UNAVAILABLE.value,
            "detail": text,
            "instance": "/readyz",
            "message": text,
            "retryable": True,
            "data": {"failed": list(faults), "reasons": faults, "age_seconds": age_seconds},
        }
        return HTTPStatus.SERVICE_UNAVAILABLE, problem


class Server(ThreadingHTTPServer):
    """Answers each connection in a thread of its own, up to ``MOST_CONNECTIONS``."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, health: Health) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.health = health
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no event."""


class Handler(BaseHTTPRequestHandler):
    """One request for each connection (HTTP/1.0)."""

    server: Server
    timeout = CLIENT_SECONDS
    server_version, sys_version = "payments", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._respond(HTTPStatus.OK, {"status": "ok"})
        elif path == "/readyz":
            self._respond(*self.server.health.readiness())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815  # http.server's name

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        status = HTTPStatus(code)
        self._respond(status, {"type": "about:blank", "title": status.phrase, "status": status.value})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
        """Not logged: there is a request every few seconds, and a log that is stuck must not stop this process."""

    def _respond(self, status: HTTPStatus, body: Mapping[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        is_problem = status >= HTTPStatus.BAD_REQUEST
        self.send_header("Content-Type", "application/problem+json" if is_problem else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", str(RETRY_AFTER_SECONDS))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def main(descriptor: str, master: str, address: str) -> None:
    """ServiceResponse until the master has ended, however it ends: then this process has another parent."""
    given = json.loads(address)
    health = Health(given if isinstance(given, str) else (given[0], given[1]))

    def stop(*_signal: Any) -> None:
        health.is_stopping = True

    signal.signal(signal.SIGUSR1, stop)
    server = Server(socket.socket(fileno=int(descriptor)), health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.getppid() == int(master):
        time.sleep(LOOK_AFTER_MASTER_SECONDS)
    os._exit(0)  # not sys.exit: no connection of a slow client keeps it alive


if __name__ == "__main__":
    main(*sys.argv[1:])
