"""One attempt: a POST to an endpoint, within ten seconds in all."""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from payments_app.webhook_endpoints.models import DeliveryError
from payments_app.webhook_endpoints.targets import HostNotFound, UnusableUrl, find_addresses, is_public, require_usable

# Seconds of one attempt: name, connection, TLS, request and the head of the answer.
ATTEMPT_SECONDS = 10.0

# Of an answer only the status counts. So many bytes of it are read, of its body for so many seconds, so that a server
# that is still writing is not cut off.
READ_BYTES = 64 * 1024
READ_SECONDS = 1.0

_PORTS = {"https": 443, "http": 80}
_SAFE_IN_URL = "%/:=&?~#+!$,;'@()*[]-._"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``error``: None if the endpoint has taken it. ``status_code``: of its answer, if there was one."""

    error: DeliveryError | None
    status_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which URLs may be called: see ``Settings``."""

    https_only: bool
    allow_private: bool


class _Failed(Exception):
    def __init__(self, error: DeliveryError) -> None:
        super().__init__(error)
        self.error = error


# What an exception means; the first that fits.
_MEANINGS: Mapping[type[Exception], DeliveryError] = {
    HostNotFound: DeliveryError.HOST_NOT_FOUND,
    TimeoutError: DeliveryError.TIMED_OUT,
    ssl.SSLError: DeliveryError.TLS_FAILED,
    OSError: DeliveryError.NO_CONNECTION,
    http.client.HTTPException: DeliveryError.NOT_HTTP,
}


def post(url: str, body: bytes, headers: Mapping[str, str], rules: Rules, *, seconds: float) -> Outcome:
    """Send a body to a URL, by no proxy; redirects are not followed."""
    try:
        return _outcome_of(_exchange(url, body, headers, rules, time.monotonic() + seconds))
    except _Failed as failure:
        return Outcome(failure.error)
    except tuple(_MEANINGS) as error:
        return Outcome(next(meaning for kind, meaning in _MEANINGS.items() if isinstance(error, kind)))


def _outcome_of(status: int) -> Outcome:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Outcome(None, status)
    if status == HTTPStatus.GONE:
        return Outcome(DeliveryError.GONE, status)
    is_redirect = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return Outcome(DeliveryError.REDIRECTED if is_redirect else DeliveryError.REFUSED, status)


def _exchange(url: str, body: bytes, headers: Mapping[str, str], rules: Rules, deadline: float) -> int:
    """The status of the answer."""
    try:
        parts = require_usable(url, https_only=rules.https_only, allow_private=rules.allow_private)
    except UnusableUrl:
        is_plain = rules.https_only and not url.lower().startswith("https:")
        raise _Failed(DeliveryError.NOT_HTTPS if is_plain else DeliveryError.ADDRESS_NOT_PUBLIC) from None
    host = (parts.hostname or "").encode("idna").decode()
    port = parts.port or _PORTS[parts.scheme]
    connection = _connect(host, port, rules, deadline)
    try:
        if parts.scheme == "https":
            connection.settimeout(_left(deadline))
            connection = _tls().wrap_socket(connection, server_hostname=host)
        named = f"[{host}]" if ":" in host else host
        target = quote(parts.path or "/", safe=_SAFE_IN_URL) + (
            f"?{quote(parts.query, safe=_SAFE_IN_URL)}" if parts.query else ""
        )
        head = {
            "Host": named if port == _PORTS[parts.scheme] else f"{named}:{port}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": "consultation-payments-webhooks",
            "Accept": "*/*",
            "Connection": "close",
            **headers,
        }
        lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        connection.settimeout(_left(deadline))
        connection.sendall("\r\n".join(lines).encode("ascii") + body)
        return _read_status(connection, deadline)
    finally:
        connection.close()


def _connect(host: str, port: int, rules: Rules, deadline: float) -> socket.socket:
    """A connection to one of the host's addresses, each of which was looked at."""
    found = find_addresses(host, port, seconds=_left(deadline))
    allowed = [each for each in found if rules.allow_private or is_public(each[4][0])]
    if not allowed:
        raise _Failed(DeliveryError.ADDRESS_NOT_PUBLIC)
    for number, (family, kind, protocol, _, address) in enumerate(allowed):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left(deadline) / (len(allowed) - number))  # time is left for the next one
            connection.connect(address)
        except OSError:
            connection.close()
            if number == len(allowed) - 1:
                raise
        else:
            return connection
    raise _Failed(DeliveryError.NO_CONNECTION)


def _read_status(connection: socket.socket, deadline: float) -> int:
    reader = _Reader(connection, deadline)
    response = http.client.HTTPResponse(reader, method="POST")  # type: ignore[arg-type]  # it only calls makefile
    response.begin()
    reader.deadline = min(deadline, time.monotonic() + READ_SECONDS)
    with suppress(OSError, http.client.HTTPException):  # the status is the answer: it has come
        response.read()
    return response.status


class _Reader(io.RawIOBase):
    """The first bytes that a socket sends until the deadline. A socket's own time limit begins anew with each byte."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        super().__init__()
        self._connection = connection
        self.deadline = deadline
        self._bytes_left = READ_BYTES

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self.deadline))
        number = self._connection.recv_into(buffer, min(len(buffer), self._bytes_left)) if self._bytes_left else 0
        self._bytes_left -= number
        return number


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@cache
def _tls() -> ssl.SSLContext:
    """One for the process: reading the machine's certificates takes some ten milliseconds."""
    return ssl.create_default_context()
