"""A client as it should be: it asks over real HTTP, many at once, and again with the same key until it is answered."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

# Seconds for one answer: longer than nginx waits for the slowest honest one (docs/deployment.md has the ladder).
REQUEST_SECONDS = 60

# Seconds that a request is sent again for: a worker that was killed is replaced within a few, a limit ends in a minute.
PATIENCE_SECONDS = 90

# Seconds before the same request is sent again where the answer, if there was one, does not say.
PAUSE_SECONDS = 0.1

BUG = 500

# Statuses by which a service, or a proxy before it, asks for the same request later.
_LATER = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Request:
    """A request of one user under one key; ``path`` below ``/api/v1``."""

    method: str
    path: str
    token: str = field(repr=False)
    key: str | None = None
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; status 0 where none came as long as the client was patient, and ``silence`` says what came instead."""

    request: Request
    status: int
    body: dict[str, Any]
    replayed: bool = False
    silence: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """What it is about; empty where it is about nothing."""
        data = self.body.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def problem(self) -> str:
        """The last part of a problem's type; empty where there is none."""
        return str(self.body.get("type", "")).rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.request.method} {self.request.path} answered {self.status or 'nothing'} {self.problem}".rstrip()


class Client:
    """``pace``: so many requests a second at the most, on average; None: as fast as they are answered."""

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
        self._counting = threading.Lock()
        self._is_over = threading.Event()
        # No repetitions by the library: what is sent again, and why, is this client's business.
        self._pool = urllib3.PoolManager(maxsize=at_once, retries=False, timeout=urllib3.Timeout(REQUEST_SECONDS))

    def request(self, request: Request) -> Response:
        """One request, alone."""
        return self.at_once([request])[0]

    def try_once(self, request: Request) -> Response:
        """One request, which is not sent again: is anybody there?"""
        responses, _ = self._ask_once(request)
        return responses

    def at_once(self, requests: Sequence[Request], meanwhile: Callable[[], None] | None = None) -> list[Response]:
        """All of them at the same moment, each from a thread of its own; the answers in the same order.

        ``meanwhile`` is done by the caller's thread while they are on their way.
        """
        started = time.monotonic()
        gate = threading.Barrier(len(requests))
        with ThreadPoolExecutor(len(requests)) as threads:
            try:
                answers = [threads.submit(self._ask_at, gate, request) for request in requests]
                if meanwhile is not None:
                    meanwhile()
                responses = [answer.result() for answer in answers]
            except BaseException:  # interrupted: the threads are waited for, and are not to begin anything more
                self._is_over.set()
                gate.abort()
                raise
        if self._pace is not None:  # whoever is behind a network's limit waits until the burst is paid off
            time.sleep(max(0.0, len(requests) / self._pace - (time.monotonic() - started)))
        return responses

    def close(self) -> None:
        self._pool.clear()

    def _ask_at(self, gate: threading.Barrier, request: Request) -> Response:
        gate.wait()
        give_up_at = time.monotonic() + self._patience_seconds
        while True:
            responses, pause_seconds = self._ask_once(request)
            if pause_seconds is None or time.monotonic() > give_up_at or self._is_over.wait(pause_seconds):
                return responses
            with self._counting:
                self.repeated += 1

    def _ask_once(self, request: Request) -> tuple[Response, float | None]:
        """What came of it; and, where the same request is to be sent again, after how many seconds."""
        headers = {**self._headers, "Authorization": f"Bearer {request.token}"}
        if request.key is not None:
            headers["Idempotency-Key"] = request.key
        with self._counting:
            self.sent += 1
        try:
            answer = self._pool.request(
                request.method, f"{self.url}/api/v1{request.path}", headers=headers, json=request.body, redirect=False
            )
        except HTTPError as error:  # cut off, refused or silent: it may have happened, and the key says so
            return Response(request, 0, {}, silence=str(error)), PAUSE_SECONDS
        with self._counting:
            self.answered += 1
        responses = Response(request, answer.status, _json(answer.data), "Idempotent-Replayed" in answer.headers)
        # A 500 says so too, but it breaks a promise: sent again, it would only be told later.
        may_succeed_later = answer.status in _LATER or (
            responses.body.get("retryable") is True and answer.status != BUG
        )
        return responses, _pause_seconds(answer.headers.get("Retry-After")) if may_succeed_later else None


def _pause_seconds(retry_after: str | None) -> float:
    """What the answer says; a proxy may say a date, which is as good as nothing."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else PAUSE_SECONDS


def _json(data: bytes) -> dict[str, Any]:
    """The body, where it is one of ours."""
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
