"""Bodies that are no honest JSON: refused before anybody looks at what they say (spec, section 5: 400, 413, 415)."""

import io
import json
import time

import pytest
import requests

from tests.api.assertions import ApiUnderTest, assert_problem, nothing_written
from tests.api.endpoints import ENDPOINTS, good_body, send_raw
from tests.support.dialects import on_postgresql
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import Service

LIMIT_BYTES = 64 * 1024
WEBHOOK_LIMIT_BYTES = 512 * 1024
MAX_DEPTH = 32
GOOD = good_body("create")
FORM = "application/x-www-form-urlencoded"

every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    """The good body with a member ``x``, so that the whole is ``depth`` deep."""
    inner = opening * (depth - 1) + closing * (depth - 1)
    return GOOD[:-1] + f', "x": {inner}}}'.encode()


MALFORMED = {
    "a blank": b" ",
    "cut off": GOOD[:-1],
    "a trailing comma": GOOD[:-1] + b",}",
    "a comment": GOOD + b" // paid",
    "two values": GOOD + GOOD,
    "single quotes": GOOD.replace(b'"', b"'"),
    "a form": b"consultation_id=6&amount=5000&payment_method=stripe",
    "NUL behind it": GOOD + b"\x00",
    "a raw line feed in a string": GOOD.replace(b"stripe", b"stri\npe"),
    "a broken escape": GOOD.replace(b"stripe", rb"stri\xpe"),
    "a leading zero": GOOD.replace(b"5000", b"05000"),
    "a plus sign": GOOD.replace(b"5000", b"+5000"),
    "hexadecimal": GOOD.replace(b"5000", b"0x1388"),
    "an underscore": GOOD.replace(b"5000", b"5_000"),
    "Arabic-Indic digits": GOOD.replace(b"5000", "\u0665\u0660\u0660\u0660".encode()),
    "NaN": GOOD.replace(b"5000", b"NaN"),
    "Infinity": GOOD.replace(b"5000", b"Infinity"),
    "-Infinity": GOOD.replace(b"5000", b"-Infinity"),
    "no UTF-8": GOOD.replace(b"stripe", b"stripe\xff"),
    "overlong UTF-8": GOOD.replace(b"stripe", b"\xc0\xafstripe"),
    "a surrogate in UTF-8": GOOD.replace(b"stripe", b"\xed\xa0\x80"),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "arrays 33 deep": nested(MAX_DEPTH + 1),
    "objects 33 deep": nested(MAX_DEPTH + 1, '{"x":', "}").replace(b":}", b":1}"),
    "arrays 30,000 deep": nested(30_000),
    "30,000 arrays never closed": b"[" * 30_000,
    "a member twice": GOOD[:-1] + b', "amount": 6000}',
    "a member twice, once escaped": GOOD[:-1] + rb', "\u0061mount": 6000}',
    "a member twice with the same value": GOOD[:-1] + b', "amount": 5000}',
    "a member twice further in": GOOD[:-1] + b', "x": {"y": 1, "y": 1}}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_body_that_is_no_strict_json_is_refused(api: ApiUnderTest, body: bytes) -> None:
    with api.nothing_written():
        answer = send_raw(api, "create", body)

    assert_problem(answer, 400, code="malformed-request")


@every_endpoint
def test_every_endpoint_refuses_malformed_json(api: ApiUnderTest, endpoint: str) -> None:
    with api.nothing_written():
        cut_off = send_raw(api, endpoint, good_body(endpoint)[:-1])
        member_twice = send_raw(api, endpoint, good_body(endpoint)[:-1] + b"," + good_body(endpoint)[1:])
        too_deep = send_raw(api, endpoint, b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))

    for answer in (cut_off, member_twice, too_deep):
        assert_problem(answer, 400, code="malformed-request")


def test_thirty_two_levels_are_not_too_deep(api: ApiUnderTest) -> None:
    with api.nothing_written():
        answer = send_raw(api, "create", nested(MAX_DEPTH))

    assert_problem(answer, 422, "x")


def test_brackets_within_a_text_are_no_levels(people: People) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]

    answer = people.patient.confirm(payment_id, transaction_id='\\"[{' * 20)

    assert answer.status_code == 200
    assert answer.json["data"]["payment"]["transaction_id"] == '\\"[{' * 20


def test_a_hostile_body_is_refused_without_costing_much(api: ApiUnderTest) -> None:
    """Brackets enough to be looked at closely, then quotes that open strings and never close one. No login needed."""
    body = b"[" * (MAX_DEPTH + 1) + b'"\\' * 10_000

    begun = time.process_time()
    answer = send_raw(api, "login", body)
    cost_seconds = time.process_time() - begun

    assert_problem(answer, 400)
    # Read in linear time it takes milliseconds; in quadratic time, a second, and eleven for all of the 64 KiB.
    assert cost_seconds < 0.3


def test_sixty_four_kibibytes_are_not_too_many(people: People, rows: Rows) -> None:
    answer = people.patient.post("/payments", data=GOOD.ljust(LIMIT_BYTES), content_type="application/json")

    assert answer.status_code == 201
    assert rows.count("payments") == 1


@every_endpoint
def test_one_byte_more_than_sixty_four_kibibytes_is_too_many(api: ApiUnderTest, endpoint: str) -> None:
    with api.nothing_written():
        answer = send_raw(api, endpoint, good_body(endpoint).ljust(LIMIT_BYTES + 1))

    assert_problem(answer, 413)


def test_a_login_form_is_limited_as_json_is(api: ApiUnderTest) -> None:
    form = b"email=patient@example.com&password=wrong".ljust(LIMIT_BYTES + 1, b"&")

    assert_problem(send_raw(api, "login", form, FORM), 413)


def post_in_chunks(url: str, body: bytes, **headers: str) -> requests.Response:
    """Send a body without a Content-Length, so that nobody knows its size in advance."""
    source = io.BytesIO(body)
    return requests.post(url, data=iter(lambda: source.read(4096), b""), headers=headers, timeout=10)


@on_postgresql  # gunicorn limits it
def test_a_chunked_body_is_limited_as_any_other(gunicorn: Service, people: People, rows: Rows) -> None:
    url = f"{gunicorn.url}/api/v1/payments"
    headers = {**people.patient.authorization, "Content-Type": "application/json"}

    assert post_in_chunks(url, GOOD.ljust(LIMIT_BYTES), **headers).status_code == 201
    with nothing_written(rows):
        too_large = post_in_chunks(url, GOOD.replace(b"6", b"7", 1).ljust(LIMIT_BYTES + 1), **headers)

    assert too_large.status_code == 413, too_large.text
    assert too_large.headers["Content-Type"] == "application/problem+json"


@on_postgresql  # gunicorn limits it
def test_a_chunked_login_form_is_limited_as_any_other(gunicorn: Service) -> None:
    form = b"email=patient@example.com&password=wrong".ljust(LIMIT_BYTES + 1, b"&")

    answer = post_in_chunks(f"{gunicorn.url}/api/login", form, **{"Content-Type": FORM})

    assert answer.status_code == 413, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


@on_postgresql  # gunicorn limits it
def test_a_chunked_webhook_has_a_limit_of_its_own(gunicorn: Service, rows: Rows) -> None:
    url = f"{gunicorn.url}/api/v1/webhooks/stripe"
    with nothing_written(rows):
        largest = post_in_chunks(url, b" " * WEBHOOK_LIMIT_BYTES)
        too_large = post_in_chunks(url, b" " * (WEBHOOK_LIMIT_BYTES + 1))

    assert (largest.status_code, largest.json()["type"]) == (400, "/problems/webhook-not-genuine")
    assert too_large.status_code == 413, too_large.text
    assert too_large.headers["Content-Type"] == "application/problem+json"


def test_a_webhook_is_limited_as_any_other_body_and_judged_by_its_signature_alone(api: ApiUnderTest) -> None:
    """Its media type and JSON come after, and without a secret (as here) nobody's signature is good."""
    client, path = api.people.anonymous(), "/api/v1/webhooks/stripe"
    signature = {"Stripe-Signature": "t=1,v1=00"}
    with api.nothing_written():
        too_large = client.post(path, data=b" " * (WEBHOOK_LIMIT_BYTES + 1), content_type="application/json")
        unsigned = [
            client.post(path, data=body, content_type=content_type, headers=headers)
            for body in (b"", b"{", b"{}", b"\xff", GOOD, b" " * WEBHOOK_LIMIT_BYTES, b"[" * (MAX_DEPTH + 1))
            for content_type in ("application/json", "text/plain", None)
            for headers in ({}, signature, {"Stripe-Signature": ""}, {"Stripe-Signature": "t=x,v1="})
        ]

    assert_problem(too_large, 413)
    for answer in unsigned:
        assert_problem(answer, 400, code="webhook-not-genuine")


@every_endpoint
def test_a_good_body_under_another_media_type_is_refused(api: ApiUnderTest, endpoint: str) -> None:
    with api.nothing_written():
        answer = send_raw(api, endpoint, good_body(endpoint), "text/plain")

    assert_problem(answer, 415)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "nonsense",
        "application/xml",
        "application/jsonp",
        "text/plain; application/json",
        FORM,
        "multipart/form-data; boundary=x",
    ],
)
def test_json_that_does_not_call_itself_json_pays_nothing(api: ApiUnderTest, content_type: str | None) -> None:
    with api.nothing_written():
        answer = send_raw(api, "create", GOOD, content_type)

    assert_problem(answer, 415)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON"])
def test_json_may_be_named_with_a_charset_or_in_capitals(people: People, content_type: str) -> None:
    assert people.patient.post("/payments", data=GOOD, content_type=content_type).status_code == 201


@pytest.mark.parametrize("body", ["[]", "[<good>]", '"text"', '""', "5", "0", "true", "false", "null"])
def test_json_that_is_no_object_is_invalid(api: ApiUnderTest, body: str) -> None:
    with api.nothing_written():
        answer = send_raw(api, "create", body.replace("<good>", GOOD.decode()).encode())

    assert_problem(answer, 422, "_schema")


@every_endpoint
def test_every_endpoint_refuses_an_array(api: ApiUnderTest, endpoint: str) -> None:
    with api.nothing_written():
        answer = send_raw(api, endpoint, b"[" + good_body(endpoint) + b"]")

    assert_problem(answer, 422, "_schema")


@pytest.mark.parametrize(
    ("endpoint", "missing"),
    [
        ("login", ["email", "password"]),
        ("create", ["consultation_id", "amount", "payment_method"]),
        ("confirm", ["transaction_id"]),
        ("consultation", ["patient_id"]),
        ("exchange", ["token"]),
    ],
    ids=["login", "create", "confirm", "consultation", "exchange"],
)
def test_no_body_is_an_empty_object(api: ApiUnderTest, endpoint: str, missing: list[str]) -> None:
    with api.nothing_written():
        absent = send_raw(api, endpoint, None, None)
        empty = send_raw(api, endpoint, json.dumps({}).encode())

    assert_problem(absent, 422, *missing)
    assert_problem(empty, 422, *missing)


def test_neither_checkout_nor_cancel_nor_refund_needs_a_body(people: People, rows: Rows) -> None:
    cancelled, paid = (people.patient.pay(number).json["data"]["payment_id"] for number in (5, 6))
    assert people.patient.post(f"/payments/{cancelled}/checkout", data=b"").status_code == 200
    assert people.patient.post(f"/payments/{cancelled}/cancel", data=b"").status_code == 200
    assert people.patient.confirm(paid).status_code == 200

    assert people.admin.post(f"/payments/{paid}/refund", data=b"").status_code == 200
    assert rows.one("SELECT refunded_minor FROM payments WHERE id = :id", id=paid) == {"refunded_minor": 500_000}
