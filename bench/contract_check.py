"""Before a measurement: every service that is compared must make the same checks as the others."""

import json
import re
import uuid
from http import HTTPStatus
from typing import Any

import requests

from bench.environment import FIRST_UNPAID, UNPAID, Store
from bench.requests import AMOUNT, paid_event
from bench.services import Running
from tests.support.fake_stripe import FakeStripe
from tests.support.people import Person
from tests.support.waiting import PATIENCE_SECONDS, wait_until

UNKNOWN_CONSULTATION = FIRST_UNPAID + 10 * UNPAID
FOREIGN_CONSULTATION = FIRST_UNPAID + UNPAID

SECURITY_HEADERS = ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy")
COUNTED = re.compile(r"^payments_http_requests_total\{([^}]*)\} ([0-9.]+)$", re.MULTILINE)


def require_contract(url: str, store: Store) -> None:
    """Require checks of token, input and ownership, one payment per key and consultation, and all five rows once."""
    store.clear()
    client = _Client(url, store.patient)
    client.pay(401, FIRST_UNPAID, "a", token=f"{store.patient.token[:-8]}tampered")
    client.pay(422, FIRST_UNPAID, "b", amount=1)
    client.pay(404, UNKNOWN_CONSULTATION, "c")
    client.pay(403, FOREIGN_CONSULTATION, "d")
    first = client.pay(201, FIRST_UNPAID, "e")
    again = client.pay(201, FIRST_UNPAID, "e")
    client.pay(422, FIRST_UNPAID + 1, "e")
    client.pay(409, FIRST_UNPAID, "f")
    _require_replay(first, again)
    _require(store.counts(), {1}, "rows for one payment")
    store.clear()


def require_duties(running: Running, store: Store) -> None:
    """Require request ids, security headers, problem details, strict JSON, a log line in JSON, and shared metrics."""
    store.clear()
    client = _Client(running.url, store.patient)
    created = client.pay(201, FIRST_UNPAID, "a", more={"X-Request-ID": "bench-duties"})
    _require(created.headers.get("X-Request-ID"), "bench-duties", "as the request's id")
    missing = [name for name in SECURITY_HEADERS if name not in created.headers]
    _require(missing, [], "headers are missing")
    _require_problem(client.pay(404, UNKNOWN_CONSULTATION, "b"))
    _require_problem(client.send(400, "POST", "/payments", data=b'{"amount": 5000, "amount": 5000}'))
    wait_until(lambda: _is_logged(running, "bench-duties"), lambda: f"{running.url} has no log line of a request")
    labels, count = _counted(running.url)
    _require(('status="201"' in labels, count), (True, 1.0), "creates are counted")
    store.clear()


def require_life(url: str, store: Store) -> None:
    """Require that a payment is checked out, completed by a genuine webhook once, and refunded once and in full."""
    store.clear()
    patient, admin = _Client(url, store.patient), _Client(url, store.admin)
    payment_id = patient.pay(201, FIRST_UNPAID, "a").json()["data"]["payment_id"]
    path = f"/payments/{payment_id}"
    reference = patient.post(200, f"{path}/checkout", {}, "b").json()["data"]["reference"]
    again = patient.post(200, f"{path}/checkout", {}, "b").json()["data"]["reference"]
    _require(again, reference, "is the session of the same checkout again")
    event = paid_event(payment_id, FIRST_UNPAID, reference)
    admin.post(409, f"{path}/refund", {"amount": AMOUNT}, "c")  # it is not paid yet
    patient.webhook(400, event, FakeStripe.sign(event, secret="whsec_another"))  # noqa: S106  # a wrong one
    for _ in range(2):
        patient.webhook(200, event, FakeStripe.sign(event))
    shown = patient.send(200, "GET", path).json()["data"]
    _require((shown["status"], shown["version"], shown["invoices"][0]["status"]), ("completed", 1, "paid"), "is shown")
    patient.post(409, f"{path}/checkout", {}, "d")
    patient.post(403, f"{path}/refund", {"amount": AMOUNT}, "e")
    first = admin.post(200, f"{path}/refund", {"amount": AMOUNT}, "f")
    _require_replay(first, admin.post(200, f"{path}/refund", {"amount": AMOUNT}, "f"))
    admin.post(409, f"{path}/refund", {"amount": AMOUNT}, "g")
    _require(patient.send(200, "GET", path).json()["data"]["status"], "refunded", "is shown")
    for table, expected in ROWS_OF_A_LIFE.items():
        (counted,) = store.column(f"SELECT count(*) FROM {table}")
        _require(counted, expected, f"rows in {table}")
    store.clear()


ROWS_OF_A_LIFE = {
    "payments WHERE status = 'refunded' AND refunded_minor = received_minor AND version = 3": 1,
    "payment_events": 4,
    "idempotency_keys": 3,
    "gateway_sessions WHERE status = 'succeeded'": 1,
    "webhook_events": 1,
    "refunds WHERE status = 'succeeded' AND reference IS NOT NULL": 1,
    "credit_notes": 1,
    "invoices WHERE status = 'refunded'": 1,
}


def _is_logged(running: Running, request_id: str) -> bool:
    lines = [line for line in running.log.read_text().splitlines() if line.startswith("{")]
    return any(
        event.get("request_id") == request_id and event.get("status") == HTTPStatus.CREATED
        for event in map(json.loads, lines)
    )


def _counted(url: str) -> tuple[str, float]:
    """The labels and the number of creates, of all processes together."""
    exposed = requests.get(f"{url}/metrics", headers={"X-Forwarded-Proto": "https"}, timeout=PATIENCE_SECONDS).text
    created = [
        (labels, float(number))
        for labels, number in COUNTED.findall(exposed)
        if 'route="/api/v1/payments"' in labels and 'status="201"' in labels
    ]
    return created[0] if created else (exposed, 0.0)


def _require_problem(response: requests.Response) -> None:
    is_problem = response.headers["Content-Type"].startswith("application/problem+json")
    if not is_problem or not {"type", "title", "status", "request_id"} <= response.json().keys():
        raise SystemExit(f"{response.url} responds without problem details: {response.text}")


def _require_replay(first: requests.Response, again: requests.Response) -> None:
    if again.content != first.content or again.headers.get("Idempotent-Replayed") != "true":
        raise SystemExit(f"{first.url} responds to a replay with {again.text}, but responded first with {first.text}")


def _require(found: Any, expected: Any, what: str) -> None:
    if found != expected:
        raise SystemExit(f"{found} instead of {expected} {what}")


class _Client:
    """Requests of one person; each must have the expected status."""

    def __init__(self, url: str, person: Person) -> None:
        self._url = f"{url}/api/v1"
        self._person = person
        self._run = uuid.uuid4().hex  # Redis may still have copies of responses to keys of an earlier check

    def pay(
        self,
        status: int,
        consultation_id: int,
        key: str,
        *,
        amount: int = AMOUNT,
        token: str | None = None,
        more: dict[str, str] | None = None,
    ) -> requests.Response:
        body = {"consultation_id": consultation_id, "amount": amount, "payment_method": "stripe"}
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.post(status, "/payments", body, key, **headers, **(more or {}))

    def post(self, status: int, path: str, body: dict[str, Any], key: str, **headers: str) -> requests.Response:
        key_header = {"Idempotency-Key": f"contract-{self._run}-{key}"}
        return self.send(status, "POST", path, json.dumps(body).encode(), **key_header, **headers)

    def webhook(self, status: int, event: bytes, signature: str) -> requests.Response:
        return self.send(status, "POST", "/webhooks/stripe", event, **{"Stripe-Signature": signature})

    def send(self, status: int, method: str, path: str, data: bytes | None = None, **headers: str) -> requests.Response:
        content = {"Content-Type": "application/json"} if data is not None else {}
        response = requests.request(
            method,
            f"{self._url}{path}",
            data=data,
            headers={**self._person.authorization, "X-Forwarded-Proto": "https", **content, **headers},
            timeout=PATIENCE_SECONDS,
        )
        if response.status_code != status:
            raise SystemExit(f"{response.url} responds with {response.status_code}, not {status}: {response.text}")
        return response
