"""Where several things are wrong at once, the contract says which one is told (spec, section 3).

Token, size, media type, JSON, schema, existence and ownership, key, same-transaction retry, If-Match,
``expected_version``, transition, fee: each test below is wrong in two neighbours, or more, of this order.
"""

import pytest

from tests.api.assertions import ApiUnderTest, assert_problem, nothing_written
from tests.api.endpoints import ENDPOINTS, good_body, who_may
from tests.support.client import ApiResponse
from tests.support.people import People, Person
from tests.support.rows import Rows

NO_PAYMENT = 2**63 - 1
TOO_LARGE = b"[" * (64 * 1024 + 1)
BAD_AND_TWICE = b'{"amount": true, "amount": true}'

every_write = pytest.mark.parametrize(
    "endpoint", [endpoint for endpoint in ENDPOINTS if endpoint not in ("login", "exchange")]
)


def send_raw(
    api: ApiUnderTest, endpoint: str, body: bytes, content_type: str, authorization: dict[str, str]
) -> ApiResponse:
    method, path, _ = ENDPOINTS[endpoint]
    path = path.format(pending_id=api.pending_id)
    return api.people.anonymous().open(path, method=method, data=body, content_type=content_type, headers=authorization)


def authorization_for(api: ApiUnderTest, endpoint: str) -> dict[str, str]:
    return who_may(api, endpoint).authorization


@every_write
def test_the_token_is_judged_before_the_body(api: ApiUnderTest, endpoint: str) -> None:
    junk = {"Authorization": "Bearer junk"}
    with api.nothing_written():
        answers = [
            send_raw(api, endpoint, TOO_LARGE, "text/plain", junk),
            send_raw(api, endpoint, good_body(endpoint), "text/plain", junk),
            send_raw(api, endpoint, BAD_AND_TWICE, "application/json", junk),
            send_raw(api, endpoint, b'{"x": 1}', "application/json", {}),
        ]

    for answer in answers:
        assert_problem(answer, 401, code="not-authenticated")


def test_the_token_is_judged_before_the_query_and_what_exists(api: ApiUnderTest) -> None:
    stranger = api.people.anonymous()
    with api.nothing_written():
        for path in ("payments?per_page=0", "payments?cursor=x", f"payments/{NO_PAYMENT}", "consultations/999"):
            assert_problem(stranger.get(f"/api/v1/{path}"), 401, code="not-authenticated")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_size_is_judged_before_the_media_type_and_the_json(api: ApiUnderTest, endpoint: str) -> None:
    with api.nothing_written():
        plain = send_raw(api, endpoint, TOO_LARGE, "text/plain", authorization_for(api, endpoint))
        malformed = send_raw(api, endpoint, TOO_LARGE, "application/json", authorization_for(api, endpoint))

    assert_problem(plain, 413)
    assert_problem(malformed, 413)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_media_type_is_judged_before_the_json(api: ApiUnderTest, endpoint: str) -> None:
    with api.nothing_written():
        answer = send_raw(api, endpoint, BAD_AND_TWICE, "text/plain", authorization_for(api, endpoint))

    assert_problem(answer, 415)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_json_is_judged_before_the_schema(api: ApiUnderTest, endpoint: str) -> None:
    with api.nothing_written():
        answer = send_raw(api, endpoint, BAD_AND_TWICE, "application/json", authorization_for(api, endpoint))

    assert_problem(answer, 400, code="malformed-request")


def change(
    person: Person, payment_id: int, endpoint: str, *, headers: dict[str, str], **members: object
) -> ApiResponse:
    body = {"transaction_id": "TXN-1", **members} if endpoint == "confirm" else members
    return person.post(f"/payments/{payment_id}/{endpoint}", body, headers=headers)


@pytest.mark.parametrize("consultation_id", [999, 21], ids=["missing", "another's"])
def test_the_schema_is_judged_before_the_consultation(api: ApiUnderTest, consultation_id: int) -> None:
    patient = api.people.patient
    with api.nothing_written():
        assert_problem(patient.pay(consultation_id, amount=1), 422, "amount")
        assert_problem(patient.pay(consultation_id, payment_method="cash"), 422, "payment_method")
        assert_problem(patient.pay(consultation_id, key="one key"), 422, "idempotency_key")
        assert_problem(patient.pay(consultation_id, x=1), 422, "x")


@pytest.mark.parametrize("endpoint", ["confirm", "cancel", "checkout", "refund"])
def test_the_schema_is_judged_before_the_payment(api: ApiUnderTest, endpoint: str) -> None:
    # An admin, who alone may refund, is a stranger to no payment.
    strangers_cases = (
        [(api.people.admin, NO_PAYMENT)]
        if endpoint == "refund"
        else [(api.people.patient, NO_PAYMENT), (api.people.other, api.pending_id)]
    )
    with api.nothing_written():
        for person, payment_id in strangers_cases:
            unknown = change(person, payment_id, endpoint, headers={"If-Match": "banana"}, x=1)
            ill_formed_key = change(person, payment_id, endpoint, headers={"Idempotency-Key": "."})
            assert_problem(unknown, 422, "x")
            assert_problem(ill_formed_key, 422, "idempotency_key")


def test_the_consultation_is_judged_before_the_key(people: People, rows: Rows) -> None:
    assert people.patient.pay(5, key="used").status_code == 201

    with nothing_written(rows):
        missing = people.patient.pay(999, key="used")
        anothers = people.patient.pay(21, key="used")
        mine = people.patient.pay(6, key="used")

    assert_problem(missing, 404, code="consultation-not-found")
    assert_problem(anothers, 403, code="forbidden")
    assert_problem(mine, 422, "consultation_id", code="idempotency-key-reused")


@pytest.mark.parametrize("endpoint", ["confirm", "cancel", "checkout"])
def test_the_payment_is_judged_before_the_key_and_if_match(people: People, rows: Rows, endpoint: str) -> None:
    mine = people.patient.pay(5, key="used").json["data"]["payment_id"]
    anothers = people.other.pay(21).json["data"]["payment_id"]
    wrong = {"Idempotency-Key": "used", "If-Match": "banana"}

    with nothing_written(rows):
        expected = {} if endpoint == "checkout" else {"expected_version": 7}
        missing = change(people.patient, NO_PAYMENT, endpoint, headers=wrong, **expected)
        forbidden = change(people.patient, anothers, endpoint, headers=wrong, **expected)
        reused = change(people.patient, mine, endpoint, headers=wrong, **expected)

    assert_problem(missing, 404, code="payment-not-found")
    assert_problem(forbidden, 403, code="forbidden")
    assert_problem(reused, 422, "operation", code="idempotency-key-reused")


def test_the_schema_is_judged_before_the_reuse_of_a_key(people: People, rows: Rows) -> None:
    assert people.patient.pay(5, key="used").status_code == 201

    with nothing_written(rows):
        answer = people.patient.pay(6, key="used", amount=1)

    assert_problem(answer, 422, "amount", code="validation-failed")


def test_the_key_is_judged_before_the_active_payment_and_the_fee(people: People, rows: Rows) -> None:
    people.booking.put("/consultations/5", {"patient_id": people.patient.id, "fee": 5000})
    assert people.patient.pay(5, key="used").status_code == 201

    with nothing_written(rows):
        reused = people.patient.pay(5, key="used", amount=6000)
        duplicate = people.patient.pay(5, key="new", amount=6000)
    assert people.patient.post(f"/payments/{duplicate.json['data']['payment_id']}/cancel").status_code == 200
    with nothing_written(rows):
        wrong_fee = people.patient.pay(5, key="new", amount=6000)

    assert_problem(reused, 422, "amount", code="idempotency-key-reused")
    assert_problem(duplicate, 409, code="active-payment-exists")
    assert_problem(wrong_fee, 422, "amount", code="validation-failed")


@pytest.mark.parametrize("endpoint", ["confirm", "cancel"])
def test_the_key_is_judged_before_if_match_and_the_transition(people: People, rows: Rows, endpoint: str) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    first = change(people.patient, payment_id, endpoint, headers={"Idempotency-Key": "used"})
    assert first.status_code == 200

    with nothing_written(rows):
        stale = {"Idempotency-Key": "used", "If-Match": "banana"}
        again = change(people.patient, payment_id, endpoint, headers=stale, expected_version=7)

    assert again.status_code == 200
    assert again.data == first.data
    assert again.headers["Idempotent-Replayed"] == "true"


def test_the_same_transaction_is_judged_before_if_match_and_the_transition(people: People, rows: Rows) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    assert people.patient.confirm(payment_id, "TXN-1").status_code == 200

    with nothing_written(rows):
        again = change(people.patient, payment_id, "confirm", headers={"If-Match": "banana"}, expected_version=7)

    assert again.status_code == 200
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("endpoint", ["confirm", "cancel"])
def test_if_match_then_expected_version_then_the_transition(people: People, rows: Rows, endpoint: str) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    assert people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200

    with nothing_written(rows):
        if_match = change(people.patient, payment_id, endpoint, headers={"If-Match": '"0"'}, expected_version=0)
        expected = change(people.patient, payment_id, endpoint, headers={"If-Match": '"1"'}, expected_version=0)
        transition = change(people.patient, payment_id, endpoint, headers={"If-Match": '"1"'}, expected_version=1)

    assert_problem(if_match, 412, code="precondition-failed")
    assert_problem(expected, 409, code="version-conflict")
    assert_problem(transition, 409, code="invalid-transition")


def test_a_refund_is_judged_in_the_same_order(people: People, rows: Rows) -> None:
    """Payment, key, If-Match, ``expected_version``, transition, balance: each wrong together with all that follow."""
    admin, headers = people.admin, {"Idempotency-Key": "used", "If-Match": "banana"}
    assert admin.put("/consultations/500", {"patient_email": "patient@example.com"}).status_code == 201
    paid, pending = (people.patient.pay(number).json["data"]["payment_id"] for number in (5, 6))
    assert admin.confirm(paid, key="used").status_code == 200
    too_much = {"expected_version": 7, "amount": 5000.01}

    with nothing_written(rows):
        missing = change(admin, NO_PAYMENT, "refund", headers=headers, **too_much)
        reused = change(admin, paid, "refund", headers=headers, **too_much)
        if_match = change(admin, pending, "refund", headers={"If-Match": '"1"'}, **too_much)
        expected = change(admin, pending, "refund", headers={"If-Match": '"0"'}, **too_much)
        transition = change(admin, pending, "refund", headers={}, amount=5000.01, expected_version=0)
        balance = change(admin, paid, "refund", headers={"If-Match": '"1"'}, amount=5000.01, expected_version=1)

    assert_problem(missing, 404, code="payment-not-found")
    assert_problem(reused, 422, "operation", code="idempotency-key-reused")
    assert_problem(if_match, 412, code="precondition-failed")
    assert_problem(expected, 409, code="version-conflict")
    assert_problem(transition, 409, code="invalid-transition")
    assert_problem(balance, 422, "amount", code="refund-exceeds-balance")


def test_the_transition_is_judged_before_a_used_transaction(people: People, rows: Rows) -> None:
    paid, cancelled = (people.patient.pay(number).json["data"]["payment_id"] for number in (5, 6))
    assert people.patient.confirm(paid, "TXN-1").status_code == 200
    assert people.patient.post(f"/payments/{cancelled}/cancel").status_code == 200

    with nothing_written(rows):
        answer = people.patient.confirm(cancelled, "TXN-1")

    assert_problem(answer, 409, code="invalid-transition")
