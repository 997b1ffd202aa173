"""The document describes what the service really answers."""

from typing import Any

import jsonschema
import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.support.people import PASSWORD, People


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    answer: dict[str, Any] = app.test_client().get("/openapi.json").json
    return answer


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_every_route_is_described(app: Flask, document: dict[str, Any]) -> None:
    described = {
        (method.upper(), path.replace("{", "<").replace("}", ">"))
        for path, operations in document["paths"].items()
        for method in operations
        if method != "parameters"
    }
    routed = {
        (method, str(rule).replace("id:", ""))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if str(rule).startswith("/api/")
    }

    assert described == routed


def test_answers_match_the_document(people: People, document: dict[str, Any]) -> None:
    patient = people.patient
    created = patient.pay(5, key="k")
    payment_id = created.json["data"]["payment_id"]
    one = "/api/v1/payments/{payment_id}"
    asked = [
        ("post", "/api/v1/payments", created),
        ("post", "/api/v1/payments", patient.pay(5)),
        ("post", "/api/v1/payments", patient.pay(5, amount="1e4")),
        ("post", "/api/v1/payments", patient.pay(999)),
        ("post", f"{one}/confirm", patient.confirm(payment_id)),
        ("post", f"{one}/confirm", patient.confirm(payment_id, "OTHER")),
        ("post", f"{one}/cancel", patient.post(f"/payments/{patient.pay(6).json['data']['payment_id']}/cancel")),
        ("post", f"{one}/cancel", patient.post(f"/payments/{payment_id}/cancel", headers={"If-Match": '"9"'})),
        ("get", "/api/v1/payments", patient.get("/payments?per_page=1")),
        ("get", "/api/v1/payments", patient.get("/payments?per_page=0")),
        ("get", one, patient.get(f"/payments/{payment_id}")),
        ("get", one, people.other.get(f"/payments/{payment_id}")),
        ("get", f"{one}/events", patient.get(f"/payments/{payment_id}/events")),
        ("get", "/api/v1/payment-methods", patient.get("/payment-methods")),
        ("get", "/api/v1/me", patient.get("/me")),
        ("get", "/api/v1/me", people.anonymous().get("/api/v1/me")),
        ("get", "/api/v1/consultations", patient.get("/consultations")),
        ("get", "/api/v1/consultations/{consultation_id}", patient.get("/consultations/5")),
        (
            "put",
            "/api/v1/consultations/{consultation_id}",
            people.admin.put("/consultations/5", {"patient_id": patient.id}),
        ),
        (
            "post",
            "/api/login",
            people.anonymous().post("/api/login", json={"email": patient.email, "password": PASSWORD}),
        ),
    ]
    for method, path, answer in asked:
        response = document["paths"][path][method]["responses"][str(answer.status_code)]
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        schema = {**response["content"][answer.content_type]["schema"], "components": document["components"]}
        jsonschema.validate(answer.json, schema)
        assert len(schema) > 1


def test_a_schema_that_does_not_fit_is_noticed(people: People, document: dict[str, Any]) -> None:
    """The check above can fail: a payment without an id matches nothing."""
    answer = people.patient.pay(5).json
    del answer["data"]["payment"]["id"]
    schema = document["paths"]["/api/v1/payments"]["post"]["responses"]["201"]["content"]["application/json"]["schema"]

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, {**schema, "components": document["components"]})


def test_the_page_needs_nothing_from_elsewhere(app: Flask) -> None:
    page = app.test_client().get("/docs", follow_redirects=True)

    assert page.status_code == 200
    assert "http://" not in page.text.replace("http://localhost", "")
    assert "https://" not in page.text
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js"):
        with app.test_client().get(f"/docs/{asset}") as answer:
            assert answer.status_code == 200
