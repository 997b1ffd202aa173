"""The endpoints that take a body, each with a valid body, and functions that send raw bytes to them."""

import json
from typing import Any

import pytest

from tests.api.assertions import ApiUnderTest
from tests.support.client import ApiResponse
from tests.support.people import PASSWORD, Person

Body = dict[str, Any]

ENDPOINTS: dict[str, tuple[str, str, Body]] = {
    "login": ("POST", "/api/login", {"email": "patient@example.com", "password": PASSWORD}),
    "create": ("POST", "/api/v1/payments", {"consultation_id": 6, "amount": 5000, "payment_method": "stripe"}),
    "confirm": ("POST", "/api/v1/payments/{pending_id}/confirm", {"transaction_id": "TXN-1"}),
    "cancel": ("POST", "/api/v1/payments/{pending_id}/cancel", {"expected_version": 0}),
    "checkout": ("POST", "/api/v1/payments/{pending_id}/checkout", {"idempotency_key": "the-endpoint"}),
    "refund": ("POST", "/api/v1/payments/{pending_id}/refund", {"amount": 1000, "reason": "asked for"}),
    "settle": ("POST", "/api/v1/refunds/999999/settle", {"reference": "GC-1"}),
    "approve": ("POST", "/api/v1/refunds/999999/approve", {"expected_version": 1}),
    "reject": ("POST", "/api/v1/refunds/999999/reject", {"reason": "asked for"}),
    "resolve": ("POST", "/api/v1/payments/{pending_id}/resolve-review", {"expected_version": 0}),
    "link": ("POST", "/api/v1/consultations/5/links", {"expires_in": 3600}),
    "exchange": ("POST", "/api/v1/payment-links/exchange", {"token": "a-token-that-nobody-has"}),
    "consultation": ("PUT", "/api/v1/consultations/500", {"patient_email": "patient@example.com"}),
    "webhook": ("POST", "/api/v1/webhook-endpoints", {"url": "https://booking.example.org/hook"}),
    "close": ("POST", "/api/v1/consultations/500/close", {}),
}


def who_may(api: ApiUnderTest, endpoint: str) -> Person:
    """The patient creates and checks out, an admin does the rest."""
    return api.people.patient if endpoint in ("create", "checkout") else api.people.admin


def send_raw(
    api: ApiUnderTest, endpoint: str, body: bytes | None, content_type: str | None = "application/json"
) -> ApiResponse:
    """Send raw bytes with a token whose role may use the endpoint."""
    method, path, _ = ENDPOINTS[endpoint]
    return api.people.anonymous().open(
        path.format(pending_id=api.pending_id),
        method=method,
        data=body,
        content_type=content_type,
        headers=who_may(api, endpoint).authorization,
    )


def send_with(api: ApiUnderTest, endpoint: str, **members: Any) -> ApiResponse:
    """Send the valid body with some members changed or added."""
    return send_raw(api, endpoint, json.dumps({**ENDPOINTS[endpoint][2], **members}).encode())


def send_with_text(api: ApiUnderTest, endpoint: str, member: str, json_text: str) -> ApiResponse:
    """Send the valid body with this JSON text, which no encoder may produce, as the value of one member."""
    others = {name: value for name, value in ENDPOINTS[endpoint][2].items() if name != member}
    body = json.dumps({**others, member: "<here>"}).replace('"<here>"', json_text)
    return send_raw(api, endpoint, body.encode())


def good_body(endpoint: str) -> bytes:
    return json.dumps(ENDPOINTS[endpoint][2]).encode()


def cases(values: dict[str, Any]) -> pytest.MarkDecorator:
    """Run the test with each ``value``, under its name."""
    return pytest.mark.parametrize("value", values.values(), ids=values)
