"""Idempotency keys that are none, and If-Match that matches nothing (spec, sections 3 and 5: 422 and 412)."""

import socket
from typing import Any

import pytest
from werkzeug.datastructures import Headers

from tests.api.assertions import ApiUnderTest, assert_problem, nothing_written
from tests.api.endpoints import ENDPOINTS, cases, send_with, who_may
from tests.support.client import ApiResponse
from tests.support.dialects import on_postgresql
from tests.support.people import People, Person
from tests.support.rows import Rows
from tests.support.service import Service

KEYED = ["create", "confirm", "cancel", "checkout", "refund"]

ILL_FORMED_KEYS = {
    "empty": "",
    "256 characters": "k" * 256,
    "a blank": " ",
    "a blank within": "one key",
    "a tab within": "one\tkey",
    "a quote": 'one"key',
    "a quote at the start": '"one-key',
    "a backslash": "one\\key",
    "a dot": ".",
    "two dots": "..",
    "no ASCII": "cl\u00e9",
    "DEL": "one\x7fkey",
    "NUL": "one\x00key",
    "a line feed behind": "one-key\n",
}
ILL_FORMED_IN_HEADERS = {
    **{name: key for name, key in ILL_FORMED_KEYS.items() if name != "a line feed behind"},  # ends the header
    "quoted: empty": '""',
    "quoted: 256 characters": f'"{"k" * 256}"',
    "quoted: a blank within": '"one key"',
    "quoted: a dot": '"."',
    "quoted twice": '""one-key""',
    "quoted: an escaped quote": '"one\\"key"',
    "single quote mark": '"',
    "two keys": "one,two",
    "one key twice": "one,one",
    "two keys, joined by a proxy": "one, two",
    "nothing and a key": ",one",
    "a comma": ",",
    "two quoted keys": '"one","two"',
    "quoted: a comma within": '"one,two"',
}
ILL_FORMED_IN_BODIES = {
    **ILL_FORMED_KEYS,
    "quoted": '"one-key"',
    "other letters": "\u043a\u043b\u044e\u0447",
    "full-width letters": "\uff4b\uff45\uff59",
    "a lone surrogate": "one\ud800key",
    "a number": 5,
    "true": True,
    "null": None,
    "an array": ["one-key"],
}


def send(api: ApiUnderTest, endpoint: str, headers: dict[str, str], **members: Any) -> ApiResponse:
    """Ask as one who may; the good body, but for its own key."""
    method, path, body = ENDPOINTS[endpoint]
    path = path.removeprefix("/api/v1").format(pending_id=api.pending_id)
    body = {name: value for name, value in body.items() if name != "idempotency_key"}
    return who_may(api, endpoint).send(method, path, headers=headers, json={**body, **members})


@cases(ILL_FORMED_IN_HEADERS)
def test_an_ill_formed_key_in_a_header_is_refused(api: ApiUnderTest, value: str) -> None:
    with api.nothing_written():
        answers = [send(api, "create", {header: value}) for header in ("Idempotency-Key", "X-Idempotency-Key")]

    for answer in answers:
        assert_problem(answer, 422, "idempotency_key")
        assert "Idempotency-Key" not in answer.headers


@cases(ILL_FORMED_IN_BODIES)
def test_an_ill_formed_key_in_a_body_is_refused(api: ApiUnderTest, value: Any) -> None:
    with api.nothing_written():
        answer = send_with(api, "create", idempotency_key=value)

    assert_problem(answer, 422, "idempotency_key")


@pytest.mark.parametrize("endpoint", KEYED)
def test_whatever_takes_a_key_refuses_ill_formed_and_differing_ones(api: ApiUnderTest, endpoint: str) -> None:
    with api.nothing_written():
        answers = [
            send(api, endpoint, {"Idempotency-Key": "one key"}),
            send(api, endpoint, {"X-Idempotency-Key": ".."}),
            send(api, endpoint, {}, idempotency_key="one\\key"),
            send(api, endpoint, {"Idempotency-Key": "good"}, idempotency_key=""),
            send(api, endpoint, {"Idempotency-Key": "one", "X-Idempotency-Key": "two"}),
            send(api, endpoint, {"Idempotency-Key": "one"}, idempotency_key="two"),
            send(api, endpoint, {"X-Idempotency-Key": '"one"'}, idempotency_key="two"),
            send(api, endpoint, {"Idempotency-Key": "one"}, idempotency_key="One"),
            send(api, endpoint, {"Idempotency-Key": "one", "X-Idempotency-Key": "one"}, idempotency_key="two"),
        ]

    for answer in answers:
        assert_problem(answer, 422, "idempotency_key")


@pytest.mark.parametrize(
    "key", ["k", "k" * 255, "!#$%&'()*+-./:;<=>?@[]^_`{|}~", "...", "%2e"], ids=["1", "255", "signs", "dots", "escape"]
)
def test_a_well_formed_key_is_one_key_wherever_and_however_it_is_given(people: People, rows: Rows, key: str) -> None:
    ways: list[tuple[dict[str, str], dict[str, str]]] = [
        ({"Idempotency-Key": key}, {}),
        ({"Idempotency-Key": f'"{key}"'}, {}),
        ({"X-Idempotency-Key": key}, {}),
        ({}, {"idempotency_key": key}),
        ({"Idempotency-Key": f'"{key}"', "X-Idempotency-Key": key}, {"idempotency_key": key}),
    ]
    body = {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}

    answers = [people.patient.post("/payments", {**body, **member}, headers=header) for header, member in ways]

    assert [answer.status_code for answer in answers] == [201] * len(ways)
    assert {answer.headers["Idempotency-Key"] for answer in answers} == {key}
    assert len({answer.data for answer in answers}) == 1
    assert rows.all("SELECT key FROM idempotency_keys") == [{"key": key}]


@on_postgresql  # gunicorn refuses it
def test_a_header_with_a_control_character_pays_nothing(gunicorn: Service, people: People, rows: Rows) -> None:
    """gunicorn refuses it with a body of its own; what counts is that nobody pays under a key that is none."""
    body = b'{"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}'
    lines = [
        "POST /api/v1/payments HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {people.patient.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Idempotency-Key: one\x01key",
    ]
    host, port = gunicorn.url.removeprefix("http://").split(":")

    with nothing_written(rows), socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        status_line = connection.makefile("rb").readline()

    assert status_line.split()[1] in (b"400", b"422"), status_line


NO_VERSIONS = {
    "empty": "",
    "a word": "banana",
    "a quoted word": '"banana"',
    "nothing quoted": '""',
    "a weak tag": 'W/"0"',
    "another version": '"1"',
    "a negative version": '"-1"',
    "a leading zero": '"00"',
    "a plus sign": '"+0"',
    "a fraction": '"0.0"',
    "a blank within": '" 0"',
    "half a quote": '"0',
    "a quoted star": '"*"',
    "a comma": ",",
    "some others": '"1", "2", W/"0"',
    "the version and another": '"7", "0"',
    "the version, strong and weak": '"0", W/"0"',
    "the version and a star": '"0", *',
    "a star and another version": '*,"7"',
    "no ASCII": '"\u00b2"',
    "5,000 digits": f'"{"0" * 5000}"',
}


def change(person: Person, payment_id: int, endpoint: str, if_match: str) -> ApiResponse:
    body = {"transaction_id": "TXN-1"} if endpoint == "confirm" else {}
    return person.post(f"/payments/{payment_id}/{endpoint}", body, headers=Headers({"If-Match": if_match}))


@cases(NO_VERSIONS)
def test_an_if_match_that_is_not_the_version_changes_nothing(api: ApiUnderTest, value: str) -> None:
    with api.nothing_written():
        answers = [
            change(api.people.admin, api.pending_id, endpoint, value) for endpoint in ("confirm", "cancel", "refund")
        ]

    for answer in answers:
        assert_problem(answer, 412, code="precondition-failed")
        assert answer.json["data"] == {"current_version": 0}


@pytest.mark.parametrize("if_match", ['"0"', '"0","0"', "*"])
@pytest.mark.parametrize("endpoint", ["confirm", "cancel"])
def test_an_if_match_that_names_the_version_lets_pass(people: People, endpoint: str, if_match: str) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]

    assert change(people.patient, payment_id, endpoint, if_match).status_code == 200
