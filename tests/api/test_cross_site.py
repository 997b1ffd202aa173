"""A page of somebody else's, open in a patient's browser, can do nothing here in the patient's name."""

import pytest
from flask import Flask

from tests.api.assertions import ApiUnderTest, assert_problem
from tests.support.client import client_of
from tests.support.people import PASSWORD, People

EVIL = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
PAYMENT = {"consultation_id": "6", "amount": "5000", "payment_method": "stripe"}


def test_nothing_that_a_browser_sends_by_itself_is_a_proof(api: ApiUnderTest) -> None:
    """Cookies and Basic authorization go along with whatever page asks; a bearer token only with one that has it."""
    token = api.people.patient.token
    client = api.people.anonymous()
    for name in ("access_token_cookie", "token", "session", "Authorization"):
        client.set_cookie(name, token)

    with api.nothing_written():
        by_cookie = client.post("/api/v1/payments", json=PAYMENT, headers=EVIL)
        by_query = client.post(f"/api/v1/payments?jwt={token}&token={token}&access_token={token}", json=PAYMENT)
        by_form = client.post("/api/v1/payments", data={**PAYMENT, "access_token": token}, headers=EVIL)
        by_basic = client.post("/api/v1/payments", json=PAYMENT, auth=(api.people.patient.email, PASSWORD))

    for answer in (by_cookie, by_query, by_form, by_basic):
        assert_problem(answer, 401, code="not-authenticated")


@pytest.mark.parametrize("path", ["/api/login", "/api/v1/me", "/api/v1/payments", "/openapi.json", "/"])
def test_no_other_site_is_let_in_to_read_or_to_send_headers(app: Flask, people: People, path: str) -> None:
    asking = {**EVIL, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    client = client_of(app)

    for answer in (
        client.options(path, headers=asking),
        client.get(path, headers={**EVIL, **people.patient.authorization}),
        client.post(path, json={}, headers={**EVIL, **people.patient.authorization}),
    ):
        assert [name for name, _ in answer.headers if name.startswith("Access-Control-")] == []


def test_nobody_is_given_a_cookie(app: Flask, people: People) -> None:
    login = {"email": people.patient.email, "password": PASSWORD}

    answers = [
        client_of(app).post("/api/login", json=login),
        client_of(app).post("/api/login", data=login),
        client_of(app).get("/"),
        people.patient.get("/me"),
        people.patient.pay(5),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 201]
    assert [answer.headers.getlist("Set-Cookie") for answer in answers] == [[]] * 5
