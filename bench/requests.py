"""The requests to the services, as bytes."""

import json
from collections.abc import Iterable
from urllib.parse import quote

from bench.environment import FIRST_UNPAID
from tests.support.people import Person

AMOUNT = 5000

# An odd number near 2^64 divided by the golden ratio: its multiples are spread evenly, as random keys are, and can be
# computed again from their number.
_SPREAD = 0x9E3779B97F4A7C15


def key(number: int) -> str:
    """An idempotency key that looks random, as clients' keys do."""
    return f"{number * _SPREAD % 2**64:016x}-{number}"


def create(person: Person, consultation_id: int, idempotency_key: str) -> bytes:
    body = json.dumps({"consultation_id": consultation_id, "amount": AMOUNT, "payment_method": "stripe"}).encode()
    headers = f"Idempotency-Key: {idempotency_key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return _head("POST", "/api/v1/payments", person, headers) + body


def creates(person: Person, count: int, *, first: int = 0) -> list[bytes]:
    """Creates of ``count`` payments of different consultations."""
    return [create(person, FIRST_UNPAID + number, key(number)) for number in range(first, first + count)]


def show(person: Person, payment_id: int) -> bytes:
    return _head("GET", f"/api/v1/payments/{payment_id}", person)


def shows(person: Person, payment_ids: Iterable[int]) -> list[bytes]:
    return [show(person, payment_id) for payment_id in payment_ids]


def list_page(person: Person, cursor: str | None = None) -> bytes:
    """Fifteen payments: the newest, or those behind a cursor."""
    query = f"?cursor={quote(cursor)}" if cursor else ""
    return _head("GET", f"/api/v1/payments{query}", person)


def _head(method: str, target: str, person: Person, headers: str = "") -> bytes:
    # As the proxy in front would set them.
    proxied = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
    token = f"Authorization: Bearer {person.token}\r\n"
    return f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{proxied}{token}{headers}\r\n".encode()
