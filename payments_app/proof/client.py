"""A correct client: sends many requests at once, and repeats each with the same key until it has a response."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

# Seconds to wait for one response: longer than nginx waits for the slowest valid one (see docs/deployment.md).
REQUEST_SECONDS = 60

# Seconds for which a request is repeated: a killed worker is replaced within a few, a rate limit resets in a minute.
PATIENCE_SECONDS = 90

# Seconds before a repetition if no response says when.
PAUSE_SECONDS = 0.1

INTERNAL_ERROR = 500

# Statuses by which a service, or the proxy in front of it, asks to repeat the request later.
_RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Request:
    """A request of one user under one key; ``path`` below ``/api/v1``. An empty ``token``: of nobody."""

    method: str
    path: str
    token: str = field(repr=False)
    key: str | None = None
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A response. If none came in time, ``status`` is 0 and ``silence`` is the last error."""

    request: Request
    status: int
    body: dict[str, Any]
    replayed: bool = False
    silence: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """The member ``data``; empty if there is none."""
        data = self.body.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def problem(self) -> str:
        """The code of the problem: the last part of its type; empty if the response is no problem."""
        return str(self.body.get("type", "")).rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.request.method} {self.request.path} answered {self.status or 'nothing'} {self.problem}".rstrip()


class Client:
    """``pace``: the maximum number of requests per second, on average; None: no limit."""

    def __init__(
        self,
        url: str,
        *,
        at_once: int,
        headers: dict[str, str] | None = None,
        pace: int | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.url = url.rstrip("/")
        self.sent = self.answered = self.repeated = 0
        self._headers = headers or {}
        self._pace = pace
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        # No repetitions by the library: this client decides about them.
        self._pool = urllib3.PoolManager(maxsize=at_once, retries=False, timeout=urllib3.Timeout(REQUEST_SECONDS))

    def request(self, request: Request) -> Response:
        """Send one request, with repetitions."""
        return self.at_once([request])[0]

    def try_once(self, request: Request) -> Response:
        """Send one request, without repetitions: for finding out whether the service responds."""
        response, _ = self._send_once(request)
        return response

    def at_once(self, requests: Sequence[Request], meanwhile: Callable[[], None] | None = None) -> list[Response]:
        """Send all requests at the same moment, each from its own thread; returns the responses in the same order.

        ``meanwhile`` runs in the calling thread at the same time.
        """
        started = time.monotonic()
        gate = threading.Barrier(len(requests))
        with ThreadPoolExecutor(len(requests)) as threads:
            try:
                futures = [threads.submit(self._send_at, gate, request) for request in requests]
                if meanwhile is not None:
                    meanwhile()
                responses = [future.result() for future in futures]
            except BaseException:  # interrupted: wait for the threads, which must not send anything more
                self._is_over.set()
                gate.abort()
                raise
        if self._pace is not None:  # wait until the burst is within the average
            time.sleep(max(0.0, len(requests) / self._pace - (time.monotonic() - started)))
        return responses

    def close(self) -> None:
        self._pool.clear()

    def _send_at(self, gate: threading.Barrier, request: Request) -> Response:
        gate.wait()
        give_up_at = time.monotonic() + self._patience_seconds
        while True:
            response, pause_seconds = self._send_once(request)
            if pause_seconds is None or time.monotonic() > give_up_at or self._is_over.wait(pause_seconds):
                return response
            with self._lock:
                self.repeated += 1

    def _send_once(self, request: Request) -> tuple[Response, float | None]:
        """Send the request once. Returns the response, and after how many seconds to repeat the request, or None."""
        headers = dict(self._headers)
        if request.token:
            headers["Authorization"] = f"Bearer {request.token}"
        if request.key is not None:
            headers["Idempotency-Key"] = request.key
        with self._lock:
            self.sent += 1
        try:
            received = self._pool.request(
                request.method, f"{self.url}/api/v1{request.path}", headers=headers, json=request.body, redirect=False
            )
        except HTTPError as error:  # no response: the effect may have happened, so repeat it with the same key
            return Response(request, 0, {}, silence=str(error)), PAUSE_SECONDS
        with self._lock:
            self.answered += 1
        response = Response(request, received.status, _json(received.data), "Idempotent-Replayed" in received.headers)
        # A 500 is retryable too, but it breaks a promise: it is not repeated, so that it is reported.
        may_succeed_later = received.status in _RETRYABLE_STATUSES or (
            response.body.get("retryable") is True and received.status != INTERNAL_ERROR
        )
        return response, _pause_seconds(received.headers.get("Retry-After")) if may_succeed_later else None


def _pause_seconds(retry_after: str | None) -> float:
    """The seconds of Retry-After; the default if it is missing, or a date from a proxy."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else PAUSE_SECONDS


def _json(data: bytes) -> dict[str, Any]:
    """The body if it is a JSON object, else empty."""
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
