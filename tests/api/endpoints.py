"""The doors that take a body, each with a good one, and a way to send them raw bytes."""

import json
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.api.assertions import House
from tests.support.people import PASSWORD, Person

Body = dict[str, Any]

DOORS: dict[str, tuple[str, str, Body]] = {
    "login": ("POST", "/api/login", {"email": "patient@example.com", "password": PASSWORD}),
    "create": ("POST", "/api/v1/payments", {"consultation_id": 6, "amount": 5000, "payment_method": "stripe"}),
    "confirm": ("POST", "/api/v1/payments/{pending_id}/confirm", {"transaction_id": "TXN-1"}),
    "cancel": ("POST", "/api/v1/payments/{pending_id}/cancel", {"expected_version": 0}),
    "checkout": ("POST", "/api/v1/payments/{pending_id}/checkout", {"idempotency_key": "the-door"}),
    "refund": ("POST", "/api/v1/payments/{pending_id}/refund", {"amount": 1000, "reason": "asked for"}),
    "link": ("POST", "/api/v1/consultations/5/links", {"expires_in": 3600}),
    "exchange": ("POST", "/api/v1/payment-links/exchange", {"token": "a-token-that-nobody-has"}),
    "consultation": ("PUT", "/api/v1/consultations/500", {"patient_email": "patient@example.com"}),
}


def who_may(house: House, door: str) -> Person:
    """The patient creates and checks out, an admin does the rest."""
    return house.people.patient if door in ("create", "checkout") else house.people.admin


def knock(house: House, door: str, body: bytes | None, content_type: str | None = "application/json") -> TestResponse:
    """Send raw bytes as one who may pass."""
    method, path, _ = DOORS[door]
    return house.people.anonymous().open(
        path.format(pending_id=house.pending_id),
        method=method,
        data=body,
        content_type=content_type,
        headers=who_may(house, door).authorization,
    )


def knock_with(house: House, door: str, **members: Any) -> TestResponse:
    """Send the good body with some members changed or added."""
    return knock(house, door, json.dumps({**DOORS[door][2], **members}).encode())


def knock_with_text(house: House, door: str, member: str, json_text: str) -> TestResponse:
    """Send the good body with one member written as this text, which no encoder might produce."""
    others = {name: value for name, value in DOORS[door][2].items() if name != member}
    body = json.dumps({**others, member: "<here>"}).replace('"<here>"', json_text)
    return knock(house, door, body.encode())


def good_body(door: str) -> bytes:
    return json.dumps(DOORS[door][2]).encode()


def cases(values: dict[str, Any]) -> pytest.MarkDecorator:
    """Run the test with each ``value``, under its name."""
    return pytest.mark.parametrize("value", values.values(), ids=values)
