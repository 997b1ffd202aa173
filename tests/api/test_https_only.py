"""In production, nothing is said over plain HTTP."""

from collections.abc import Callable

import pytest
from flask import Flask

from tests.support.apps import PRODUCTION
from tests.support.client import ApiResponse, client_of
from tests.support.people import PASSWORD, People

BEHIND_HTTPS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}


@pytest.fixture(params=["0", "1"])
def production(request: pytest.FixtureRequest, apps: Callable[..., Flask], people: People) -> Flask:  # noqa: ARG001  # they log in
    return apps(**PRODUCTION, TRUSTED_PROXIES=request.param)


def log_in(app: Flask, base_url: str, headers: dict[str, str]) -> ApiResponse:
    body = {"email": "patient@example.com", "password": PASSWORD}
    return client_of(app).post("/api/login", json=body, base_url=base_url, headers=headers)


def test_a_password_sent_in_the_clear_gets_no_token(production: Flask) -> None:
    answer = log_in(production, "http://localhost", {})

    assert (answer.status_code, answer.mimetype) == (403, "application/problem+json")
    assert answer.json["type"] == "/problems/https-required"
    assert answer.json["retryable"] is False
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]


def test_over_https_it_does(production: Flask) -> None:
    assert log_in(production, "https://localhost", {}).status_code == 200


def test_what_a_stranger_says_of_https_is_believed_of_trusted_proxies_alone(production: Flask) -> None:
    trusted = production.config["SETTINGS"].trusted_proxies == 1

    answer = log_in(production, "http://localhost", BEHIND_HTTPS)

    assert answer.status_code == (200 if trusted else 403)


def test_a_token_sent_in_the_clear_is_not_looked_at(production: Flask, people: People) -> None:
    with production.app_context():
        token = people.token_from(production, people.patient)
    authorization = {"Authorization": f"Bearer {token}"}
    client = client_of(production)

    clear = [client.get(path, headers=authorization) for path in ("/api/v1/me", "/openapi.json", "/nowhere")]
    secret = client.get("/api/v1/me", headers=authorization, base_url="https://localhost")

    assert [answer.status_code for answer in clear] == [403, 403, 403]
    assert secret.status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_whoever_watches_over_it_from_next_endpoint_may_ask_in_the_clear(production: Flask, path: str) -> None:
    answer = client_of(production).get(path)

    # The PostgreSQL of the tests runs without fsync: for production it is not ready.
    assert answer.status_code == 200 or answer.json["data"] == {"failed": ["durability"]}


def test_on_a_laptop_plain_http_is_enough(app: Flask, people: People) -> None:
    assert log_in(app, "http://localhost", {}).status_code == 200
    assert people.patient.get("/me").status_code == 200
