"""A header that must come once and came twice: servers join its lines with a comma, and nothing is done under that."""

from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from json import dumps, loads
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.api.assertions import ApiUnderTest, assert_problem, nothing_written
from tests.api.endpoints import ENDPOINTS, good_body, who_may
from tests.api.test_bad_headers import KEYED, send
from tests.support.dialects import on_postgresql
from tests.support.people import PASSWORD, People, Person
from tests.support.rows import Rows
from tests.support.service import Service
from tests.support.statements import statements_sent

JOINED = "first,second"

Lines = Sequence[tuple[str, str]]


def ask_gunicorn(
    gunicorn: Service, person: Person | None, path: str, body: dict[str, Any], lines: Lines
) -> tuple[int, Any]:
    """Status and body of what gunicorn answers to a POST with these header lines, each as it is."""
    connection = HTTPConnection(gunicorn.url.removeprefix("http://"), timeout=10)
    raw = dumps(body).encode()
    authorization = [] if person is None else list(person.authorization.items())
    connection.putrequest("POST", path)
    for name, value in [*authorization, ("Content-Length", str(len(raw))), *lines]:
        connection.putheader(name, value)
    connection.endheaders(raw)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    is_json = response.headers.get_content_type().endswith("json")
    return response.status, loads(answer) if is_json else answer


JSON = ("Content-Type", "application/json")


@pytest.mark.parametrize("second", ["first", "second"])
@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Idempotency-Key"])
@on_postgresql  # gunicorn joins or refuses them
def test_a_refund_whose_key_came_twice_and_then_once_is_made_once(
    gunicorn: Service, people: People, rows: Rows, name: str, second: str
) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    assert people.admin.confirm(payment_id).status_code == 200
    path, body = f"/api/v1/payments/{payment_id}/refund", {"amount": 1000}

    with nothing_written(rows):
        doubled = ask_gunicorn(gunicorn, people.admin, path, body, [JSON, (name, "first"), (name, second)])
    once = ask_gunicorn(gunicorn, people.admin, path, body, [JSON, (name, "first")])

    assert doubled[0] == 422
    assert list(doubled[1]["errors"]) == ["idempotency_key"]
    assert once[0] == 200
    assert rows.count("refunds") == 1


@on_postgresql  # gunicorn joins or refuses them
def test_two_tokens_are_nobodys_and_two_types_or_hosts_are_none(gunicorn: Service, people: People, rows: Rows) -> None:
    tokens = [f"Bearer {person.token}" for person in (people.patient, people.other)]
    doubled: list[Lines] = [
        [("Authorization", tokens[0]), ("Authorization", tokens[1])],
        [("Authorization", tokens[0]), ("Authorization", tokens[0])],
        [("Authorization", "Basic cGF0aWVudDo="), ("Authorization", tokens[0])],
        [("Authorization", tokens[0]), ("Authorization", "")],
    ]
    # gunicorn itself refuses two lines of these: it would hand over the last one alone.
    by_gunicorn: list[Lines] = [
        [("Authorization", tokens[0]), ("Content-Type", "text/plain")],
        [("Authorization", tokens[0]), JSON],
        [("Authorization", tokens[0]), ("Host", "elsewhere.example.com")],
    ]
    body = {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}

    with nothing_written(rows):
        by_us = [ask_gunicorn(gunicorn, None, "/api/v1/payments", body, [JSON, *lines]) for lines in doubled]
        before_us = [ask_gunicorn(gunicorn, None, "/api/v1/payments", body, [JSON, *lines]) for lines in by_gunicorn]

    assert [status for status, _ in by_us] == [401] * len(doubled)
    assert [status for status, _ in before_us] == [400] * len(by_gunicorn)


@on_postgresql  # gunicorn joins or refuses them
def test_two_versions_are_none_and_one_version_twice_is_one(gunicorn: Service, people: People, rows: Rows) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    path = f"/api/v1/payments/{payment_id}/cancel"
    contradicting: list[Lines] = [
        [JSON, ("If-Match", '"0"'), ("If-Match", '"1"')],
        [JSON, ("If-Match", '"1"'), ("If-Match", '"0"')],
        [JSON, ("If-Match", "*"), ("If-Match", '"1"')],
    ]

    with nothing_written(rows):
        refused = [ask_gunicorn(gunicorn, people.patient, path, {}, lines) for lines in contradicting]

    assert [status for status, _ in refused] == [412] * len(contradicting)
    twice = [JSON, ("If-Match", '"0"'), ("If-Match", '"0"')]
    assert ask_gunicorn(gunicorn, people.patient, path, {}, twice)[0] == 200


@pytest.mark.parametrize("joined", ["application/json; charset=utf-8,text/plain", "application/json;x=y, text/plain"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_media_types_that_were_joined_are_none(api: ApiUnderTest, endpoint: str, joined: str) -> None:
    method, path, _ = ENDPOINTS[endpoint]
    path = path.format(pending_id=api.pending_id).removeprefix("/api/v1")
    with api.nothing_written():
        if endpoint == "login":
            answer = api.people.anonymous().post("/api/login", data=good_body(endpoint), content_type=joined)
        else:
            answer = who_may(api, endpoint).send(method, path, data=good_body(endpoint), content_type=joined)

    assert_problem(answer, 415)


def test_a_form_whose_media_type_was_joined_is_none_and_a_comma_in_quotes_joins_nothing(api: ApiUnderTest) -> None:
    client = api.people.anonymous()
    parts = [
        *("--a,b", 'Content-Disposition: form-data; name="email"', "", "patient@example.com"),
        *("--a,b", 'Content-Disposition: form-data; name="password"', "", PASSWORD, "--a,b--", ""),
    ]
    form = "\r\n".join(parts)
    joined = 'multipart/form-data; boundary="a,b", application/json'

    assert_problem(client.post("/api/login", data=form, content_type=joined), 415)
    content_type = 'multipart/form-data; boundary="a,b"'
    assert client.post("/api/login", data=form, content_type=content_type).status_code == 200


@pytest.mark.parametrize("endpoint", KEYED)
@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Idempotency-Key"])
def test_nothing_is_made_under_a_key_that_came_with_a_comma(api: ApiUnderTest, endpoint: str, header: str) -> None:
    with api.nothing_written():
        answers = [
            send(api, endpoint, {header: JOINED}),
            send(api, endpoint, {header: JOINED}, idempotency_key=JOINED),
            send(api, endpoint, {"Idempotency-Key": JOINED, "X-Idempotency-Key": JOINED}),
        ]

    for answer in answers:
        assert_problem(answer, 422, "idempotency_key")


def ways(people: People, payment_id: int, paid_id: int) -> dict[str, Callable[[dict[str, Any], dict[str, str]], Any]]:
    """Each operation that takes a key, to be done with more members and headers."""
    patient, admin = people.patient, people.admin
    create = {"consultation_id": 8, "amount": 5000, "payment_method": "stripe"}
    proof = {"transaction_id": "TXN-2"}
    return {
        "create": lambda more, headers: patient.post("/payments", {**create, **more}, headers=headers),
        "checkout": lambda more, headers: patient.post(f"/payments/{payment_id}/checkout", more, headers=headers),
        "confirm": lambda more, headers: patient.post(
            f"/payments/{payment_id}/confirm", {**proof, **more}, headers=headers
        ),
        "cancel": lambda more, headers: patient.post(f"/payments/{payment_id}/cancel", more, headers=headers),
        "refund": lambda more, headers: admin.post(f"/payments/{paid_id}/refund", more, headers=headers),
    }


@pytest.mark.parametrize("operation", KEYED)
def test_a_key_with_a_comma_that_is_kept_goes_on_replaying(people: People, rows: Rows, operation: str) -> None:
    payment_id, paid_id = (people.patient.pay(number).json["data"]["payment_id"] for number in (5, 6))
    assert people.patient.confirm(paid_id).status_code == 200
    do = ways(people, payment_id, paid_id)[operation]
    first = do({"idempotency_key": JOINED}, {})
    assert first.status_code in (200, 201), first.text

    with nothing_written(rows):
        again = [do({}, {"Idempotency-Key": JOINED}), do({}, {"X-Idempotency-Key": f'"{JOINED}"'})]
        other_key = do({}, {"Idempotency-Key": f"{JOINED},third"})

    for answer in again:
        assert answer.data == first.data
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert answer.headers["Idempotency-Key"] == JOINED
    assert_problem(other_key, 422, "idempotency_key")


def test_such_a_key_is_its_users_and_good_for_one_request(people: People, rows: Rows) -> None:
    body = {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}
    assert people.patient.post("/payments", {**body, "idempotency_key": JOINED}).status_code == 201

    with nothing_written(rows):
        anothers = people.other.pay(21, key=JOINED)
        other_request = people.patient.pay(6, key=JOINED)

    assert_problem(anothers, 422, "idempotency_key", code="validation-failed")
    assert_problem(other_request, 422, "consultation_id", code="idempotency-key-reused")
    assert people.patient.get(f"/idempotency-keys/{JOINED}").json["data"]["operation"] == "create"


def test_a_key_with_a_comma_costs_one_look_and_no_other_key_any(people: People, rows: Rows, engine: Engine) -> None:
    def sent(consultation_id: int, key: str, status: int) -> int:
        with statements_sent(engine) as statements:
            assert people.patient.pay(consultation_id, key=key).status_code == status
        return len([statement for statement, _ in statements if not statement.startswith("BEGIN")])

    assert people.patient.pay(8).status_code == 201  # the readiness checks run
    refused = sent(5, JOINED, 422)
    made = min(sent(number, f"no-comma-{number}", 201) for number in (6, 7))  # one of them may take a block of ids
    assert (refused, made) == (1, 5 if rows.is_sqlite else 1)
