"""The document describes what the service really answers, and what it really takes."""

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import jsonschema
import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from payments_app.api import response_headers
from payments_app.errors import AppError, Conflict, UserExists
from tests.support.apps import app_with
from tests.support.client import ApiResponse, client_of
from tests.support.databases import Database
from tests.support.dialects import on_postgresql
from tests.support.people import PASSWORD, People
from tests.support.rows import Rows
from tests.support.service import at_once

CREATE = ("post", "/api/v1/payments")
CONFIRM = ("post", "/api/v1/payments/{payment_id}/confirm")
CANCEL = ("post", "/api/v1/payments/{payment_id}/cancel")
CHECKOUT = ("post", "/api/v1/payments/{payment_id}/checkout")
REFUND = ("post", "/api/v1/payments/{payment_id}/refund")
SETTLE = ("post", "/api/v1/refunds/{refund_id}/settle")
APPROVE = ("post", "/api/v1/refunds/{refund_id}/approve")
REJECT = ("post", "/api/v1/refunds/{refund_id}/reject")
LINK = ("post", "/api/v1/consultations/{consultation_id}/links")
PUT = ("put", "/api/v1/consultations/{consultation_id}")
CLOSE = ("post", "/api/v1/consultations/{consultation_id}/close")
PING = ("post", "/api/v1/webhook-endpoints/{endpoint_id}/ping")
RETRY = ("post", "/api/v1/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/retry")
RESOLVE = ("post", "/api/v1/payments/{payment_id}/resolve-review")
LOGIN = ("post", "/api/login")
EXCHANGE = ("post", "/api/v1/payment-links/exchange")
METHODS = ("get", "/api/v1/payment-methods")
INVOICE_PDF = ("get", "/api/v1/invoices/{invoice_id}.pdf")

# An operation and an answer that it gave.
Given = tuple[tuple[str, str], ApiResponse]


@pytest.fixture(scope="session")
def document_text(session_app: Flask) -> str:
    """Read once: to write it takes longer than most tests."""
    return client_of(session_app).get("/openapi.json").text


@pytest.fixture
def document(document_text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(document_text)
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of all that can be asked."""
    for path, described in document["paths"].items():
        for method, operation in described.items():
            if method != "parameters":
                yield method, path, operation


def resolved(document: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """What a reference refers to; anything else is itself."""
    found: Any = document
    for part in described.get("$ref", "#").split("/")[1:]:
        found = found[part]
    return found if "$ref" in described else described


def judge(document: dict[str, Any], value: Any, schema: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError where the value does not fit."""
    # Not jsonschema.validate, which checks the whole document too, each time.
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def judge_answer(document: dict[str, Any], operation: tuple[str, str], answer: ApiResponse) -> None:
    """The body fits its schema; the headers are those that the document names, and no required one lacks."""
    method, path = operation
    response = document["paths"][path][method]["responses"][str(answer.status_code)]
    if "content" in response:
        described = response["content"]
        # A document names a text's media type without its charset.
        schema = described[answer.content_type if answer.content_type in described else answer.mimetype]["schema"]
        if answer.is_json:
            judge(document, answer.json, schema)
        else:
            assert schema["type"] == "string"
            assert answer.data
    else:
        assert answer.data == b""
    headers = {name: resolved(document, header) for name, header in response["headers"].items()}
    assert {name for name, header in headers.items() if header.get("required")} <= set(answer.headers.keys())
    # What HTTP and browsers are told with every answer is none of the document's.
    assert (
        set(answer.headers.keys()) - {"Content-Type", "Content-Length", "Date", *response_headers.HEADERS}
        <= headers.keys()
    )
    for name, header in headers.items():
        if name in answer.headers:
            sent = answer.headers[name]
            judge(document, sent if header["schema"]["type"] == "string" else int(sent), header["schema"])


@on_postgresql  # the document is the same on both
def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == "1"
    OpenAPIV31SpecValidator(document).validate()


def test_nothing_is_left_over(document: dict[str, Any]) -> None:
    text = str(document)
    for kind, components in document["components"].items():
        if kind != "securitySchemes":
            for name in components:
                assert f"'#/components/{kind}/{name}'" in text


def test_every_operation_has_a_name_and_a_described_tag(document: dict[str, Any]) -> None:
    described_tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    names = [operation["operationId"] for _, _, operation in operations(document)]

    assert len(names) == len(set(names))
    assert all(set(operation["tags"]) <= described_tags for _, _, operation in operations(document))
    assert all(operation["summary"] for _, _, operation in operations(document))


def test_every_route_is_described(app: Flask, document: dict[str, Any]) -> None:
    described = {(method.upper(), path.replace("{", "<").replace("}", ">")) for method, path, _ in operations(document)}
    routed = {
        (method, re.sub(r"<\w+:", "<", str(rule)))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if str(rule).startswith("/api/")
    }

    assert described == routed


@pytest.mark.parametrize(
    ("operation", "headers"),
    [
        (CREATE, {"Idempotency-Key", "X-Idempotency-Key"}),
        (CONFIRM, {"Idempotency-Key", "X-Idempotency-Key", "If-Match"}),
        (CANCEL, {"Idempotency-Key", "X-Idempotency-Key", "If-Match"}),
        (METHODS, {"If-None-Match"}),
        (PUT, set()),
    ],
)
def test_the_headers_of_requests_are_described(
    document: dict[str, Any], operation: tuple[str, str], headers: set[str]
) -> None:
    method, path = operation
    parameters = [resolved(document, parameter) for parameter in document["paths"][path][method].get("parameters", [])]

    assert {parameter["name"] for parameter in parameters if parameter["in"] == "header"} == headers


@on_postgresql  # the document is the same on both
def test_answers_match_the_document(people: People, document: dict[str, Any]) -> None:
    answers = chain(  # one after the other: a list that is streamed holds its request open until it is read
        given_answers(people),
        given_answers_about_links(people),
        given_answers_about_documents(people),
        given_answers_about_webhooks(people),
        given_answers_about_refunds(people),
        given_answers_to_staff(people),
    )
    for operation, answer in answers:
        judge_answer(document, operation, answer)


def given_answers(people: People) -> Iterator[Given]:
    """One answer of each kind that needs no preparation."""
    patient = people.patient
    created = patient.pay(5, key="k")
    payment_id = created.json["data"]["payment_id"]
    one = "/api/v1/payments/{payment_id}"
    one_consultation = "/api/v1/consultations/{consultation_id}"
    yield CREATE, created
    yield CREATE, patient.pay(5, key="k")
    yield CREATE, patient.pay(5)
    yield CREATE, patient.pay(5, amount="1e4")
    yield CREATE, patient.pay(999)
    yield CREATE, people.other.pay(5)
    yield CREATE, patient.pay(6, key="k")
    yield CREATE, patient.post("/payments", data="{", headers={"Content-Type": "application/json"})
    yield CREATE, patient.post("/payments", data="x", headers={"Content-Type": "text/plain"})
    yield CREATE, patient.post("/payments", data=b" " * 70_000, headers={"Content-Type": "application/json"})
    yield CONFIRM, patient.confirm(payment_id, key="c")
    yield CONFIRM, patient.confirm(payment_id)
    yield CONFIRM, patient.confirm(payment_id, "OTHER")
    yield CANCEL, patient.post(f"/payments/{patient.pay(6).json['data']['payment_id']}/cancel")
    yield CANCEL, patient.post(f"/payments/{payment_id}/cancel", headers={"If-Match": '"9"'})
    yield CANCEL, patient.post("/payments/999999/cancel")
    yield ("get", "/api/v1/payments"), patient.get("/payments?per_page=1")
    yield ("get", "/api/v1/payments"), patient.get("/payments?per_page=0")
    yield ("get", "/api/v1/payments"), people.booking.get("/payments")
    yield ("get", "/api/v1/events"), people.admin.get("/events")
    yield ("get", "/api/v1/events"), people.admin.get("/events?limit=0")
    yield ("get", "/api/v1/events"), patient.get("/events")
    yield ("get", "/api/v1/disputes"), people.admin.get("/disputes")
    yield ("get", "/api/v1/disputes"), people.admin.get("/disputes?status=open")
    yield ("get", "/api/v1/disputes"), patient.get("/disputes")
    yield ("get", one), patient.get(f"/payments/{payment_id}")
    yield ("get", one), people.other.get(f"/payments/{payment_id}")
    yield ("get", f"{one}/events"), patient.get(f"/payments/{payment_id}/events")
    methods = patient.get("/payment-methods")
    yield METHODS, methods
    yield METHODS, patient.get("/payment-methods", headers={"If-None-Match": methods.headers["ETag"]})
    yield ("get", "/api/v1/me"), patient.get("/me")
    yield ("get", "/api/v1/me"), people.anonymous().get("/api/v1/me")
    yield ("get", "/api/v1/consultations"), patient.get("/consultations?per_page=1")
    yield ("get", one_consultation), patient.get("/consultations/5")
    yield PUT, people.admin.put("/consultations/5", {"patient_id": patient.id})
    yield PUT, people.admin.put("/consultations/5", {"patient_id": people.other.id})
    yield PUT, people.booking.put("/consultations/77", {"patient_email": patient.email, "fee": "5000.50"})
    yield ("get", "/api/v1/idempotency-keys/{key}"), patient.get("/idempotency-keys/k")
    yield ("get", "/api/v1/idempotency-keys/{key}"), patient.get("/idempotency-keys/unknown")
    yield LOGIN, people.anonymous().post("/api/login", json={"email": patient.email, "password": PASSWORD})
    yield LOGIN, people.anonymous().post("/api/login", data={"email": patient.email, "password": PASSWORD})
    yield LOGIN, people.anonymous().post("/api/login", data={"email": patient.email, "password": "wrong"})


def given_answers_about_documents(people: People) -> Iterator[Given]:
    invoice_id = people.patient.pay(7).json["data"]["invoice"]["id"]
    yield INVOICE_PDF, people.patient.get(f"/invoices/{invoice_id}.pdf")
    yield INVOICE_PDF, people.patient.get("/invoices/999999.pdf")
    yield ("get", "/api/v1/credit-notes/{credit_note_id}.pdf"), people.patient.get("/credit-notes/999999.pdf")
    yield ("get", "/api/v1/payments.csv"), people.admin.get("/payments.csv?status=pending")
    yield ("get", "/api/v1/payments.csv"), people.admin.get("/payments.csv?per_page=5")


def given_answers_to_staff(people: People) -> Iterator[Given]:
    patient, payment_id = people.patient, people.patient.pay(10).json["data"]["payment_id"]
    yield ("get", "/api/v1/desk/payments"), people.admin.get("/desk/payments?search=patient&per_page=1")
    yield ("get", "/api/v1/desk/payments"), people.admin.get("/desk/payments?queue=mine&day=today")
    yield ("get", "/api/v1/desk/payments"), people.booking.get("/desk/payments")
    yield ("get", "/api/v1/desk/queues"), people.admin.get("/desk/queues")
    yield ("get", "/api/v1/desk/queues"), patient.get("/desk/queues")
    yield RESOLVE, people.admin.post(f"/payments/{payment_id}/resolve-review", {"expected_version": 0})
    yield RESOLVE, people.admin.post("/payments/999999/resolve-review")


def given_answers_about_links(people: People) -> Iterator[Given]:
    links = "/api/v1/consultations/{consultation_id}/links"
    made = people.admin.post("/consultations/5/links", {})
    yield LINK, made
    yield LINK, people.admin.post("/consultations/999/links", {})
    yield LINK, people.booking.post("/consultations/5/links", {})
    yield LINK, people.admin.post("/consultations/5/links", {"expires_in": 1})
    yield ("get", links), people.admin.get("/consultations/5/links?per_page=1")
    yield ("delete", f"{links}/{{link_id}}"), people.admin.send("DELETE", "/consultations/5/links/999")
    token = made.json["data"]["url"].rpartition("/")[2]
    yield EXCHANGE, people.anonymous().post(EXCHANGE[1], json={"token": token})
    yield EXCHANGE, people.anonymous().post(EXCHANGE[1], json={"token": "unknown"})
    yield EXCHANGE, people.anonymous().post(EXCHANGE[1], json={"token": 5})
    one_link = f"/consultations/5/links/{made.json['data']['id']}"
    yield ("delete", f"{links}/{{link_id}}"), people.admin.send("DELETE", one_link)


def given_answers_about_webhooks(people: People) -> Iterator[Given]:
    every, one = "/api/v1/webhook-endpoints", "/api/v1/webhook-endpoints/{endpoint_id}"
    admin = people.admin
    yield ("post", every), admin.post("/webhook-endpoints", {"url": "https://127.0.0.1/hook"})
    made = admin.post("/webhook-endpoints", {"url": "https://example.org/hook"})
    yield ("post", every), made
    path = f"/webhook-endpoints/{made.json['data']['id']}"
    yield ("get", every), admin.get("/webhook-endpoints")
    yield ("get", one), admin.get(path)
    yield ("get", one), people.booking.get(path)
    ping = admin.post(f"{path}/ping", None)
    yield PING, ping
    yield RETRY, admin.send("POST", f"{path}/deliveries/{ping.json['data']['id']}/retry")
    yield ("post", f"{one}/rotate-secret"), admin.post(f"{path}/rotate-secret", {"overlap": 60})
    yield ("patch", one), admin.send("PATCH", path, json={"is_enabled": False})
    yield ("patch", one), admin.send("PATCH", path, json={"types": ["no.such"]})
    yield ("get", f"{one}/deliveries"), admin.get(f"{path}/deliveries?status=failed")
    yield PING, admin.send("POST", f"{path}/ping")
    yield RETRY, admin.send("POST", f"{path}/deliveries/{ping.json['data']['id']}/retry")
    yield ("delete", one), admin.send("DELETE", path)
    yield ("delete", one), admin.send("DELETE", path)


def given_answers_about_refunds(people: People) -> Iterator[Given]:
    admin = people.admin
    payment_id = people.patient.pay(8, payment_method="gcash").json["data"]["payment_id"]
    admin.confirm(payment_id, "IN-1")
    asked = admin.post(f"/payments/{payment_id}/refund", {"amount": 1000})
    yield REFUND, asked
    refund_id = asked.json["data"]["refund"]["id"]
    yield ("get", "/api/v1/refunds"), admin.get("/refunds?per_page=1&status=pending")
    yield ("get", "/api/v1/refunds"), admin.get("/refunds?status=open")
    yield ("get", "/api/v1/refunds"), people.patient.get("/refunds")
    yield ("get", "/api/v1/refunds/{refund_id}"), admin.get(f"/refunds/{refund_id}")
    yield ("get", "/api/v1/refunds/{refund_id}"), admin.get("/refunds/999999")
    yield SETTLE, admin.post(f"/refunds/{refund_id}/settle", {"reference": "GC-1"}, headers={"If-Match": '"9"'})
    yield SETTLE, admin.post(f"/refunds/{refund_id}/settle", {"reference": "GC-1"})
    yield SETTLE, admin.post(f"/refunds/{refund_id}/settle", {"reference": "GC-2"})
    second = people.another_admin()
    yield APPROVE, admin.post(f"/refunds/{refund_id}/approve")
    yield APPROVE, second.post(f"/refunds/{refund_id}/approve")
    yield REJECT, second.post(f"/refunds/{refund_id}/reject", {"reason": "no"})
    yield REJECT, second.post(f"/refunds/{refund_id}/reject", {})


def test_an_answer_of_a_service_that_is_not_ready_matches_the_document(
    people: People, document: dict[str, Any]
) -> None:
    with app_with("postgresql+psycopg://nobody@127.0.0.1:9/nothing") as app:
        answer = people.seen_by(app).patient.pay(5)
    example = document["paths"][CREATE[1]]["post"]["responses"]["503"]["content"][answer.content_type]["examples"]

    judge_answer(document, CREATE, answer)
    assert example["not-ready"]["value"].keys() == answer.json.keys()
    assert example["not-ready"]["value"]["data"].keys() == answer.json["data"].keys()
    assert example["not-ready"]["value"]["detail"] == answer.json["detail"]


def test_the_headers_that_answers_are_about_are_there(people: People) -> None:
    created = people.patient.pay(5, key="k")
    listed = people.patient.pay(6) and people.patient.get("/payments?per_page=1")

    assert {"ETag", "Location", "Idempotency-Key", "X-Request-ID"} <= set(created.headers.keys())
    assert "Idempotent-Replayed" in people.patient.pay(5, key="k").headers
    assert "Link" in listed.headers


def test_limited_answers_match_the_document(people: People, database: Database, document: dict[str, Any]) -> None:
    limits = {
        "RATELIMIT_ENABLED": "true",
        "RATELIMIT_PAYMENTS": "1 per minute",
        "RATELIMIT_FAILED_LOGINS": "1 per hour",
    }
    with app_with(database.url, **limits) as app:
        patient = people.seen_by(app).patient
        login = {"email": patient.email, "password": "wrong"}
        created, refused = patient.pay(5), patient.pay(6)
        wrong, too_often = (client_of(app).post("/api/login", json=login) for _ in range(2))

    assert [answer.status_code for answer in (created, refused, wrong, too_often)] == [201, 429, 401, 429]
    for operation, answer in ((CREATE, created), (CREATE, refused), (LOGIN, wrong), (LOGIN, too_often)):
        judge_answer(document, operation, answer)
        assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(answer.headers.keys())
    assert "Retry-After" in refused.headers
    assert "Retry-After" in too_often.headers


def test_answers_to_keys_of_long_ago_match_the_document(people: People, document: dict[str, Any], rows: Rows) -> None:
    payment_id = people.patient.pay(5, key="create").json["data"]["payment_id"]
    people.patient.confirm(payment_id, key="confirm")
    rows.execute("UPDATE idempotency_keys SET request = NULL, response_body = NULL")
    answers = [
        (CREATE, people.patient.pay(5, key="create")),
        (CONFIRM, people.patient.confirm(payment_id, key="confirm")),
    ]

    for operation, answer in answers:
        assert (answer.status_code, answer.json["data"]["type"]) == (200, "existing")
        judge_answer(document, operation, answer)


def test_a_schema_that_does_not_fit_is_noticed(people: People, document: dict[str, Any]) -> None:
    """The check above can fail: a payment without an id matches nothing."""
    answer = people.patient.pay(5).json
    del answer["data"]["payment"]["id"]
    schema = document["paths"]["/api/v1/payments"]["post"]["responses"]["201"]["content"]["application/json"]["schema"]

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, {**schema, "components": document["components"]})


def test_the_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    judged = 0
    for _, _, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                judge(document, content["example"], content["schema"])
                judged += 1
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                for example in content.get("examples", {}).values():
                    judge(document, example["value"], content["schema"])
                    judged += 1
    for schema in document["components"]["schemas"].values():
        for described in schema.get("properties", {}).values():
            if "example" in described:
                judge(document, described["example"], described)
                judged += 1

    assert judged > 20


def test_every_conflict_has_an_example_wherever_it_occurs(document: dict[str, Any]) -> None:
    shown = {
        (method, path): {
            (example["value"]["type"].removeprefix("/problems/"), example["value"]["retryable"])
            for example in operation["responses"]["409"]["content"]["application/problem+json"]["examples"].values()
        }
        for method, path, operation in operations(document)
        if "409" in operation["responses"]
    }
    version_conflicts = {("version-conflict", False), ("version-conflict", True)}
    late_or_twice = {("invalid-transition", False), ("lock-timeout", True)}

    assert shown == {
        CREATE: {
            ("active-payment-exists", False),
            ("consultation-closed", False),
            ("consultation-currency", False),
            ("lock-timeout", True),
        },
        LINK: {("consultation-closed", False), ("payment-links-off", False)},
        CONFIRM: {
            *version_conflicts,
            *late_or_twice,
            ("active-payment-exists", False),
            ("consultation-closed", False),
            ("transaction-already-used", False),
        },
        CANCEL: {*version_conflicts, *late_or_twice},
        REFUND: {
            *version_conflicts,
            *late_or_twice,
            ("payment-disputed", False),
            ("refund-repeated", False),
            ("refundable-changed", False),
        },
        SETTLE: {
            *version_conflicts,
            ("lock-timeout", True),
            ("payment-disputed", False),
            ("refund-already-sent", False),
            ("refund-not-to-be-sent", False),
            ("transfer-already-used", False),
        },
        APPROVE: {
            *version_conflicts,
            ("lock-timeout", True),
            ("payment-disputed", False),
            ("refund-not-requested", False),
            ("refund-request-lapsed", False),
        },
        REJECT: {*version_conflicts, ("lock-timeout", True), ("refund-not-requested", False)},
        CHECKOUT: {("invalid-transition", False)},
        PUT: {
            ("consultation-closed", False),
            ("consultation-has-payments", False),
            ("reference-fixed", False),
            ("reference-taken", False),
        },
        CLOSE: {("invalid-transition", False), ("version-conflict", True)},
        PING: {("webhook-endpoint-disabled", False)},
        RETRY: {("webhook-endpoint-disabled", False)},
        RESOLVE: {*version_conflicts, *late_or_twice},
    }
    # Users are made by a command alone.
    of_requests = {error.code for error in Conflict.__subclasses__()} - {UserExists.code}
    assert {code for examples in shown.values() for code, _ in examples} == of_requests


def test_the_only_conflicts_are_conflicts() -> None:
    """The test above asks for the subclasses of Conflict: no other error is a 409."""
    errors, found = [AppError], set()
    while errors:
        error = errors.pop()
        errors += error.__subclasses__()
        if getattr(error, "status", None) == 409:
            found.add(error)

    assert found == {Conflict, *Conflict.__subclasses__()}


def test_examples_look_like_real_answers(people: People, document: dict[str, Any], rows: Rows) -> None:
    patient = people.patient
    created = patient.pay(5, key="k")
    paid, pending, cancelled, expired = (
        answer.json["data"]["payment_id"] for answer in (created, patient.pay(6), patient.pay(7), patient.pay(8))
    )
    patient.confirm(paid)
    patient.post(f"/payments/{cancelled}/cancel")
    rows.execute(f"UPDATE payments SET status = 'expired' WHERE id = {expired}")
    patient.pay(8)
    cancel_paid, cancel_pending = f"/payments/{paid}/cancel", f"/payments/{pending}/cancel"
    given = [
        (CREATE, "new", created),
        (CREATE, "active-payment-exists", patient.pay(6)),
        (CREATE, "validation-failed", patient.pay(9, amount=1)),
        (CREATE, "idempotency-key-reused", patient.pay(5, key="k", amount=6000)),
        (CONFIRM, "version-conflict", patient.confirm(pending, "TXN-2", expected_version=9)),
        (CONFIRM, "invalid-transition", patient.confirm(cancelled, "TXN-2")),
        (CONFIRM, "transaction-already-used", patient.confirm(pending)),
        (CONFIRM, "active-payment-exists", patient.confirm(expired, "TXN-2")),
        (
            CONFIRM,
            "precondition-failed",
            patient.post(f"/payments/{pending}/confirm", {"transaction_id": "TXN-2"}, headers={"If-Match": '"9"'}),
        ),
        (CONFIRM, "idempotency-key-reused", patient.confirm(paid, "TXN-2", key="k")),
        (CANCEL, "version-conflict", patient.post(cancel_pending, {"expected_version": 9})),
        (CANCEL, "invalid-transition", patient.post(cancel_paid)),
        (CANCEL, "precondition-failed", patient.post(cancel_pending, headers={"If-Match": '"9"'})),
        (PUT, "consultation-has-payments", people.admin.put("/consultations/5", {"patient_id": people.other.id})),
        (PUT, "validation-failed", people.admin.put("/consultations/5", {"patient_email": "nobody@example.com"})),
    ]

    for (method, path), name, answer in given:
        content = document["paths"][path][method]["responses"][str(answer.status_code)]["content"]
        example = content[answer.content_type]["examples"][name]["value"]
        assert example.keys() == answer.json.keys(), name
        for member in ("type", "title", "status", "retryable"):
            assert example.get(member) == answer.json.get(member), name
        assert (example.get("data") or {}).keys() == (answer.json.get("data") or {}).keys(), name


# Bodies that the document calls invalid.
@pytest.mark.parametrize(
    ("operation", "changes"),
    [
        *(
            (CREATE, changes)
            for changes in (
                {"amount": 999.99},
                {"amount": 10_000_000.01},
                {"amount": "1e4"},
                {"amount": "5000.001"},
                {"amount": "05000"},
                {"amount": True},
                {"amount": None},
                {"consultation_id": 0},
                {"consultation_id": 2**63},
                {"consultation_id": "5"},
                {"payment_method": ""},
                {"payment_method": "x" * 33},
                {"idempotency_key": "a b"},
                {"idempotency_key": '"k"'},
                {"idempotency_key": ".."},
                {"idempotency_key": "k" * 256},
                {"surprise": 1},
            )
        ),
        (CONFIRM, {"transaction_id": " TXN"}),
        (CONFIRM, {"transaction_id": "T\tN"}),
        (CONFIRM, {"transaction_id": ""}),
        (CONFIRM, {"receipt_url": "ftp://receipts.example"}),
        (CONFIRM, {"receipt_url": "http://a b"}),
        (CONFIRM, {"expected_version": -1}),
        (PUT, {"patient_email": "patient@example.com"}),
        (PUT, {"patient_id": None}),
        (PUT, {"fee": "cheap"}),
    ],
)
def test_what_the_document_calls_invalid_is_refused(
    people: People, document: dict[str, Any], operation: tuple[str, str], changes: dict[str, Any]
) -> None:
    method, path = operation
    bodies: dict[tuple[str, str], dict[str, Any]] = {
        CREATE: {"consultation_id": 6, "amount": "5000.00", "payment_method": "stripe"},
        CONFIRM: {"transaction_id": "TXN-1", "receipt_url": "https://receipts.example/1"},
        PUT: {"patient_id": people.patient.id, "fee": None},
    }
    valid = bodies[operation]
    schema = document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    judge(document, valid, schema)
    with pytest.raises(jsonschema.ValidationError):
        judge(document, {**valid, **changes}, schema)

    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    address = path.format(payment_id=payment_id, consultation_id=6).removeprefix("/api/v1")
    answer = people.admin.send(method.upper(), address, json={**valid, **changes})

    assert answer.status_code == 422
    judge_answer(document, operation, answer)


@pytest.mark.parametrize("key", ["k", "!#$%/[]~", "...", "k" * 255, "", ".", "..", "a b", "a\\b", "é", "k" * 256])
def test_keys_are_as_the_document_says(people: People, document: dict[str, Any], key: str) -> None:
    described = document["components"]["parameters"]["Idempotency-Key"]["schema"]
    body = {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}
    for sent in (key, f'"{key}"'):
        answer = people.patient.post("/payments", body, headers={"Idempotency-Key": sent})
        assert jsonschema.Draft202012Validator(described).is_valid(sent) is (answer.status_code != 422)


def test_whoever_reads_it_first_gets_the_document_that_all_get() -> None:
    """It is made when it is first read: also by several at once, and by one whose language is another."""
    with app_with("sqlite:///unused.db") as app:
        first = at_once(
            [partial(client_of(app).get, "/openapi.json", headers={"Accept-Language": each}) for each in ("id", "en")]
        )
        later = client_of(app).get("/openapi.json")
        printed = app.test_cli_runner().invoke(args=["openapi", "print"])

    assert first[0].data == first[1].data == later.data
    assert later.json["paths"].keys() >= {"/api/login", "/api/v1/payments", "/api/v1/webhooks/stripe"}
    assert json.loads(printed.output) == later.json


def test_the_limits_of_amounts_are_those_of_the_settings(database: Database) -> None:
    with app_with(database.url, PAYMENT_MIN_AMOUNT="10.50", PAYMENT_MAX_AMOUNT="20") as app:
        schemas = client_of(app).get("/openapi.json").json["components"]["schemas"]

    amount = schemas["PaymentCreate"]["properties"]["amount"]
    assert (amount["type"], amount["minimum"], amount["maximum"]) == (["number", "string"], 10.5, 20)
