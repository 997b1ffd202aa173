"""The requests to the services, as bytes."""

import json
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from bench.environment import FIRST_STORED, FIRST_UNPAID, Store, reference_of
from tests.support.fake_stripe import API_VERSION, FakeStripe
from tests.support.people import Person

AMOUNT = 5000
# What is refunded of it, where a part is.
PART = 10

# An odd number near 2^64 divided by the golden ratio: its multiples are spread evenly, as random keys are, and can be
# computed again from their number.
_SPREAD = 0x9E3779B97F4A7C15


def key(number: int) -> str:
    """An idempotency key that looks random, as clients' keys do."""
    return f"{number * _SPREAD % 2**64:016x}-{number}"


def create(person: Person, consultation_id: int, idempotency_key: str) -> bytes:
    body = {"consultation_id": consultation_id, "amount": AMOUNT, "payment_method": "stripe"}
    return _post("/payments", person, body, idempotency_key)


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


def list_100(admin: Person) -> bytes:
    """The newest hundred payments of all patients."""
    return _head("GET", "/api/v1/payments?per_page=100", admin)


def consultations(person: Person) -> bytes:
    return _head("GET", "/api/v1/consultations", person)


def checkout(person: Person, payment_id: int) -> bytes:
    return _post(f"/payments/{payment_id}/checkout", person, {}, f"checkout-{payment_id}")


def confirm(person: Person, payment_id: int) -> bytes:
    return _post(f"/payments/{payment_id}/confirm", person, {"transaction_id": f"T-{payment_id}"}, None)


def refund(person: Person, payment_id: int, amount: int = AMOUNT) -> bytes:
    return _post(f"/payments/{payment_id}/refund", person, {"amount": amount}, f"refund-{payment_id}")


def paid_webhook(payment_id: int, consultation_id: int, reference: str) -> bytes:
    """Stripe's signed event that a PaymentIntent was paid."""
    body = paid_event(payment_id, consultation_id, reference)
    headers = f"Stripe-Signature: {FakeStripe.sign(body)}\r\n{_content(body)}"
    return _head("POST", "/api/v1/webhooks/stripe", None, headers) + body


def paid_event(payment_id: int, consultation_id: int, reference: str) -> bytes:
    """As Stripe sends it, with the members of its PaymentIntent that have a value there."""
    now, amount_minor = int(time.time()), AMOUNT * 100
    intent: dict[str, Any] = {
        "id": reference,
        "object": "payment_intent",
        "amount": amount_minor,
        "amount_received": amount_minor,
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "always"},
        "canceled_at": None,
        "capture_method": "automatic_async",
        "client_secret": f"{reference}_secret_0123456789abcdef",
        "created": now,
        "currency": "php",
        "latest_charge": f"ch_{payment_id}",
        "livemode": False,
        "metadata": {"payment_id": str(payment_id), "consultation_id": str(consultation_id)},
        "payment_method_types": ["card"],
        "status": "succeeded",
    }
    event = {
        "id": f"evt_{reference}",
        "object": "event",
        "api_version": API_VERSION,
        "created": now,
        "data": {"object": intent},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "payment_intent.succeeded",
    }
    return json.dumps(event, indent=2).encode()


def confirms(store: Store, count: int) -> list[bytes]:
    """Of stored payments by hand, by an admin."""
    return [confirm(store.admin, payment_id) for payment_id in range(FIRST_STORED, FIRST_STORED + count)]


def part_refunds(store: Store, count: int) -> list[bytes]:
    """Of a part of stored payments that were paid, by an admin."""
    return [refund(store.admin, payment_id, PART) for payment_id in range(FIRST_STORED, FIRST_STORED + count)]


def paid_webhooks(_store: Store, count: int) -> list[bytes]:
    """Of stored payments by card."""
    return [
        paid_webhook(FIRST_STORED + number, FIRST_UNPAID + number, reference_of(FIRST_STORED + number))
        for number in range(count)
    ]


def _post(path: str, person: Person, body: dict[str, Any], idempotency_key: str | None) -> bytes:
    encoded = json.dumps(body).encode()
    key_header = f"Idempotency-Key: {idempotency_key}\r\n" if idempotency_key else ""
    return _head("POST", f"/api/v1{path}", person, f"{key_header}{_content(encoded)}") + encoded


def _content(body: bytes) -> str:
    return f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"


def _head(method: str, target: str, person: Person | None, headers: str = "") -> bytes:
    # As the proxy in front would set them.
    proxied = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
    token = f"Authorization: Bearer {person.token}\r\n" if person else ""
    return f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{proxied}{token}{headers}\r\n".encode()
