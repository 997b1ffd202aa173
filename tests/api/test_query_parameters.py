"""Query parameters under /api/v1: what is unknown is refused and not ignored, and so is what contradicts itself."""

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.api.assertions import ApiUnderTest, assert_problem
from tests.api.endpoints import ENDPOINTS, good_body, who_may
from tests.support.people import PASSWORD

UNKNOWN = "created_after=2026-11-01"
FOR_PATIENTS = ("payments.create_payment", "payments.open_checkout")


def endpoints(app: Flask, api: ApiUnderTest) -> Iterator[tuple[str, str, str]]:
    """Name, method and path of whatever there is under /api/v1 but gateways' webhooks."""
    values = {
        "payment_id": api.pending_id,
        "consultation_id": 5,
        "key": "k",
        "link_id": 1,
        "invoice_id": 1,
        "credit_note_id": 1,
        "refund_id": 1,
        "endpoint_id": 1,
        "delivery_id": 1,
    }
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith("/api/v1/") or rule.endpoint.startswith("webhooks."):
            continue
        path = adapter.build(rule.endpoint, {name: values[name] for name in rule.arguments})
        for method in (rule.methods or set()) - {"OPTIONS"}:
            yield rule.endpoint, method, path.removeprefix("/api/v1")


def test_every_endpoint_refuses_a_parameter_that_it_does_not_know(app: Flask, api: ApiUnderTest) -> None:
    asked = list(endpoints(app, api))
    assert len(asked) > 18

    with api.nothing_written():
        for name, method, path in asked:
            person = api.people.patient if name in FOR_PATIENTS else api.people.admin
            answer = person.send(method, f"{path}?{UNKNOWN}", json=None if method in ("GET", "HEAD") else {})
            if method == "HEAD":
                assert answer.status_code == 422, name
            else:
                assert_problem(answer, 422, "created_after", code="validation-failed")


def test_the_error_names_the_known_parameters(api: ApiUnderTest) -> None:
    payments = api.people.admin.get(f"/payments?{UNKNOWN}&per_page=0")
    me = api.people.admin.get(f"/me?{UNKNOWN}", headers={"Accept-Language": "id"})

    known = (
        "per_page, status, consultation_id, created_from, created_to, completed_from, completed_to, payment_method, "
        "needs_review, transaction_id, user_id, patient_email, cursor"
    )
    assert payments.json["errors"] == {
        "created_after": [f"Unknown parameter; known are: {known}."],
        "per_page": ["Not a valid integer."],
    }
    assert me.json["errors"] == {"created_after": ["Parameter tidak dikenal; di sini tidak ada parameter."]}


@pytest.mark.parametrize("query", ["x", "=1", "Status=pending", "status[]=pending", "per_page%00=5", "%ff=1", "a;b=1"])
def test_a_parameter_that_is_nearly_known_is_unknown(api: ApiUnderTest, query: str) -> None:
    answer = api.people.patient.get(f"/payments?{query}")

    assert answer.status_code == 422
    assert len(answer.json["errors"]) == 1


def test_it_is_judged_with_the_schema(api: ApiUnderTest) -> None:
    """After the token, the path and the body's own form, and before what exists."""
    stranger, patient = api.people.anonymous(), api.people.patient
    with api.nothing_written():
        assert_problem(stranger.get(f"/api/v1/payments?{UNKNOWN}"), 401)
        assert_problem(stranger.get(f"/api/v1/nothing?{UNKNOWN}"), 404)
        assert_problem(patient.post(f"/me?{UNKNOWN}"), 405)
        assert_problem(patient.send("POST", f"/payments?{UNKNOWN}", data=b"x", content_type="text/plain"), 415)
        assert_problem(patient.send("POST", f"/payments?{UNKNOWN}", data=b"{", content_type="application/json"), 400)
        assert_problem(patient.post(f"/payments/999999999999/cancel?{UNKNOWN}"), 422, "created_after")
        assert_problem(patient.get(f"/payments/999999999999?{UNKNOWN}"), 422, "created_after")


def test_what_is_not_asked_by_programs_of_ours_ignores_them(api: ApiUnderTest) -> None:
    client, word = api.people.anonymous(), "fbclid=1&utm_source=a&utm_source=b"

    for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/checkout/static/page.js"):
        with client.get(f"{path}?{word}") as answer:  # which closes a page's file
            assert answer.status_code == 200, path
    login = client.post(f"/api/login?{word}", data=good_body("login"), content_type="application/json")
    assert login.status_code == 200
    # Refused for its signature, and for nothing else.
    assert_problem(client.post(f"/api/v1/webhooks/stripe?{word}", data=b"{}"), 400, code="webhook-not-genuine")
    assert_problem(api.people.patient.get(f"/me?{word}"), 422, "fbclid", "utm_source")


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("/payments", "status=pending&status=completed", "status"),
        ("/payments", "consultation_id=5&consultation_id=6&status=pending", "consultation_id"),
        ("/payments", "per_page=1&per_page=", "per_page"),
        ("/consultations", "per_page=1&per_page=2&per_page=1", "per_page"),
        ("/payments", "needs_review=true&needs_review=false", "needs_review"),
    ],
)
def test_a_parameter_given_twice_is_refused_if_the_values_differ(
    api: ApiUnderTest, path: str, query: str, name: str
) -> None:
    assert_problem(api.people.admin.get(f"{path}?{query}"), 422, name)
    assert api.people.admin.get(f"{path}?per_page=1&per_page=1").json["meta"]["per_page"] == 1


def test_a_login_that_names_two_people_is_nobodys(api: ApiUnderTest) -> None:
    first, second = api.people.patient.email, api.people.other.email
    client = api.people.anonymous()

    form = f"email={first}&email={second}&password={PASSWORD}"
    assert_problem(client.post("/api/login", data=form, content_type="application/x-www-form-urlencoded"), 422, "email")


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in ENDPOINTS if endpoint != "login"])
def test_a_good_request_does_not_become_another_by_a_parameter(api: ApiUnderTest, endpoint: str) -> None:
    """A key in the query is none, nor is any other member of the body."""
    method, path, _ = ENDPOINTS[endpoint]
    path = path.format(pending_id=api.pending_id)
    with api.nothing_written():
        answer = who_may(api, endpoint).send(
            method,
            f"{path.removeprefix('/api/v1')}?idempotency_key=k&amount=1",
            data=good_body(endpoint),
            content_type="application/json",
        )

    assert_problem(answer, 422, "idempotency_key", "amount")
