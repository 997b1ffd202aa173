"""Sends the corpus to every endpoint of a real gunicorn: no response is a 5xx, and no row changes."""

import http.client
import json
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import pytest

from tests.api.assertions import INTERNALS, contents
from tests.prove.fuzz import corpus
from tests.support.databases import Database
from tests.support.dialects import on_postgresql
from tests.support.links import Payer, payer_of
from tests.support.people import PASSWORD, People
from tests.support.recorded_figures import note
from tests.support.rows import Rows
from tests.support.service import Service
from tests.support.waiting import PATIENCE_SECONDS

# Of all crossings the short form tries every 29th: a prime, so that each endpoint and each item has its turn.
STRIDE = 29
LEAST_CROSSINGS = 200

# With these, and a page of its own, gunicorn refuses what is no HTTP, what it is not to expect, and what is too large.
GUNICORNS = (400, 417, 431)


@dataclass(frozen=True)
class Request:
    """One that is refused at the last, however far it comes: the consultation is paid, the payment has ended."""

    method: str
    path: str
    token: str
    body: dict[str, object] | None = None
    extra: tuple[tuple[str, bytes], ...] = ()
    raw_body: tuple[bytes, str] | None = None
    authorization: bytes | None = None
    raw_path: bytes | None = None

    def on_the_wire(self, host: str) -> bytes:
        content, media_type = self.raw_body or (b"", "")
        if self.raw_body is None and self.body is not None:
            content, media_type = json.dumps(self.body).encode(), corpus.JSON
        headers: list[tuple[str, bytes]] = [("Host", host.encode()), ("Connection", b"close")]
        proof = f"Bearer {self.token}".encode() if self.authorization is None else self.authorization
        headers += [("Authorization", proof), *self.extra, ("Content-Length", str(len(content)).encode())]
        if media_type:
            headers.append(("Content-Type", media_type.encode("latin-1")))
        lines = [self.method.encode() + b" " + (self.raw_path or self.path.encode()) + b" HTTP/1.1"]
        lines += [name.encode() + b": " + value for name, value in headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + content


def endpoints(people: People, payer: Payer, ended_id: int) -> list[Request]:
    """All endpoints, by those who may."""
    patient, admin = people.patient.token, people.admin.token
    links = f"/api/v1/consultations/{payer.consultation_id}/links"
    ended, v1 = f"/api/v1/payments/{ended_id}", "/api/v1"
    stale: dict[str, object] = {"expected_version": 99}
    return [
        Request("POST", "/api/login", "", {"email": "nobody@example.com", "password": PASSWORD}),
        Request("GET", f"{v1}/me", patient),
        Request("GET", f"{v1}/consultations", patient),
        Request("GET", f"{v1}/consultations/5", patient),
        Request("PUT", f"{v1}/consultations/5", admin, {"patient_email": "other@example.com", "fee": 6000}),
        Request("GET", f"{v1}/payment-methods", patient),
        Request("POST", f"{v1}/payments", patient, {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}),
        Request("GET", f"{v1}/payments", patient),
        Request("GET", ended, patient),
        Request("GET", f"{ended}/events", patient),
        Request("POST", f"{ended}/checkout", patient, {}),
        Request("POST", f"{ended}/confirm", admin, {"transaction_id": "TXN-9", "receipt_url": None, **stale}),
        Request("POST", f"{ended}/cancel", admin, stale),
        Request("POST", f"{ended}/refresh", patient, {}),
        Request("POST", f"{v1}/consultations/5/close", admin, {}),
        Request("POST", f"{ended}/resolve-review", admin, stale),
        Request("GET", f"{v1}/desk/payments", admin),
        Request("GET", f"{v1}/desk/queues", admin),
        Request("POST", f"{ended}/refund", admin, {"amount": 1000, "reason": None, **stale}),
        Request("GET", f"{v1}/idempotency-keys/5", patient),
        Request("POST", links, admin, {"expires_in": 3600, "return_url": None}),
        Request("GET", links, admin),
        Request("DELETE", f"{links}/{payer.link_id}", admin),
        Request("POST", f"{v1}/payment-links/exchange", "", {"token": "unknown"}),
        Request("GET", "/pay/unknown", ""),
        *of_a_payer(payer, ended_id),
        Request("POST", f"{v1}/webhooks/stripe", "", {"id": "evt_1", "type": "payment_intent.succeeded"}),
        Request("POST", f"{v1}/webhooks/paymongo", "", {"data": {"id": "evt_1", "attributes": {}}}),
        *(Request("GET", path, "") for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")),
        Request("GET", "/problems/not-found", ""),
    ]


def of_a_payer(payer: Payer, ended_id: int) -> list[Request]:
    """What somebody with a payment link may ask."""
    ended, v1 = f"/api/v1/payments/{ended_id}", "/api/v1"
    create: dict[str, object] = {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}
    return [
        *(Request("GET", f"{v1}/{path}", payer.token) for path in ("me", "consultations/5", "payments")),
        Request("GET", f"{v1}/idempotency-keys/5", payer.token),
        Request("POST", f"{v1}/payments", payer.token, create),
        Request("POST", f"{ended}/checkout", payer.token, {}),
        Request("POST", f"{ended}/cancel", payer.token, {"expected_version": 99}),
    ]


def crossings(people: People, payer: Payer, ended_id: int) -> Iterator[tuple[str, Request]]:
    """Each item of the corpus at each endpoint where there is a place for it."""
    for endpoint in endpoints(people, payer, ended_id):
        name = f"{endpoint.method} {endpoint.path}"
        for item, body in corpus.BODIES.items():
            yield f"{name} body {item}", replace(endpoint, raw_body=body)
        for item, header in corpus.HEADERS.items():
            yield f"{name} header {item}", replace(endpoint, extra=(header,))
        for item, token in corpus.TOKENS.items():
            yield f"{name} token {item}", replace(endpoint, authorization=token)
        parts = endpoint.path.encode().split(b"/")
        for item, spelt in corpus.IDS.items():
            for place, part in enumerate(parts):
                if part in (b"5", str(ended_id).encode()):
                    path = b"/".join([*parts[:place], spelt, *parts[place + 1 :]])
                    yield f"{name} id {item}", replace(endpoint, raw_path=path)
        for member in endpoint.body or ():
            yield from members(name, endpoint, member)


def members(name: str, endpoint: Request, member: str) -> Iterable[tuple[str, Request]]:
    for item, text in corpus.TEXTS.items():
        # What is no UTF-8 is sent as an escape, as JSON allows.
        yield f"{name} {member} text {item}", _with(endpoint, member, json.dumps(text))
        if text.isprintable():
            yield (
                f"{name} {member} text {item}, in UTF-8",
                _with(endpoint, member, json.dumps(text, ensure_ascii=False)),
            )
    for item, value in corpus.VALUES.items():
        yield f"{name} {member} value {item}", _with(endpoint, member, value)


def _with(endpoint: Request, member: str, json_text: str) -> Request:
    body = json.dumps({**(endpoint.body or {}), member: "<here>"}).replace('"<here>"', json_text)
    return replace(endpoint, raw_body=(body.encode(), corpus.JSON))


def send(service: Service, request: bytes) -> tuple[int, str, str]:
    """Status, media type and text of the answer; 0 where the connection was closed without one, -1 where none came."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            with closing(http.client.HTTPResponse(connection)) as answer:
                answer.begin()
                return answer.status, answer.headers.get_content_type(), answer.read().decode("latin-1")
        except (http.client.BadStatusLine, ConnectionError):
            return 0, "", ""
        except TimeoutError:
            return -1, "", "no answer in time"


@pytest.fixture
def payer(people: People, rows: Rows) -> Payer:
    """Somebody with a link of consultation 5, which is closed then: it gets no other one. Another link was revoked."""
    payer, revoked = payer_of(people), payer_of(people)
    assert revoked.revoke().status_code == 204
    payer.link_id = revoked.link_id  # to be revoked again and again
    rows.execute("UPDATE consultations SET closed_at = created_at WHERE id = 5")
    return payer


@pytest.fixture
def fortress(database: Database, people: People) -> Iterator[tuple[Service, int]]:
    """A gunicorn; consultation 5, which is paid, and a payment that has ended: there is nothing to do any more."""
    paid_id = people.patient.pay(5).json["data"]["payment_id"]
    assert people.patient.confirm(paid_id).status_code == 200
    ended_id = people.patient.pay(6).json["data"]["payment_id"]
    assert people.patient.post(f"/payments/{ended_id}/cancel").status_code == 200
    with Service.started(database.url) as service:
        yield service, ended_id


@on_postgresql
def test_whatever_hostile_is_sent_to_whatever_endpoint_nothing_changes(
    fortress: tuple[Service, int], people: People, payer: Payer, rows: Rows, effort: int
) -> None:
    service, ended_id = fortress
    before = contents(rows)
    host = service.url.removeprefix("http://")
    answered: Counter[str] = Counter()

    for name, request in list(crossings(people, payer, ended_id))[:: STRIDE if effort == 1 else 1]:
        status, media_type, text = send(service, request.on_the_wire(host))
        assert 200 <= status < 500, (name, status, text)
        assert not [word for word in INTERNALS if word in text] or request.path == "/docs", (name, text)
        is_problem = media_type == "application/problem+json"
        is_gunicorns = media_type == "text/html" and status in GUNICORNS
        assert status < 400 or is_problem or is_gunicorns, (name, text)
        answered[str(status)] += 1

    assert contents(rows) == before
    assert answered.total() >= LEAST_CROSSINGS
    assert "Traceback" not in service.log.read_text()
    note("corpus", crossings=answered.total(), **answered)


@on_postgresql
def test_what_is_hardly_http_is_refused_and_the_next_request_answered(
    fortress: tuple[Service, int], rows: Rows
) -> None:
    service, _ = fortress
    before = contents(rows)
    host = service.url.removeprefix("http://").encode()

    for name, request in corpus.REQUESTS.items():
        status, _, text = send(service, request.replace(b"{host}", host))
        assert status == 0 or 200 <= status < 500 or status in (501, 505), (name, status, text)
        assert not [word for word in INTERNALS if word in text], (name, text)
        assert send(service, Request("GET", "/healthz", "").on_the_wire(host.decode()))[0] == 200, name

    assert contents(rows) == before
    assert "Traceback" not in service.log.read_text()
