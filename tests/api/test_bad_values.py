"""Members of a body that cannot be meant: 422, naming the field, and nothing written (spec, section 5)."""

import json
from typing import Any

import pytest

from tests.api.assertions import ApiUnderTest, assert_problem
from tests.api.endpoints import ENDPOINTS, cases, send_raw, send_with, send_with_text
from tests.support.people import People
from tests.support.rows import Rows

MAX_ID = 2**63 - 1
NUL, LONE_SURROGATE = "a\x00b", "a\ud800b"

# Ids and versions as they stand in the body: some of them no encoder would write.
BAD_IDS = {
    "zero": "0",
    "negative": "-1",
    "2^63": str(2**63),
    "2^64 + 6": str(2**64 + 6),
    "-2^63": str(-(2**63)),
    "5,000 digits": "6" * 5000,
    "a fraction": "6.5",
    "a whole fraction": "6.0",
    "an exponent": "6e0",
    "1e9999999999999": "1e9999999999999",
    "text": '"6"',
    "no characters": '""',
    "true": "true",
    "false": "false",
    "null": "null",
    "an array": "[6]",
    "an object": '{"id": 6}',
}
BAD_TEXTS = {
    "no characters": "",
    "NUL": NUL,
    "a lone surrogate": LONE_SURROGATE,
    "a lone low surrogate": "a\udc00",
    "a line feed": "a\nb",
    "a number": 5,
    "true": True,
    "null": None,
    "an array": ["a"],
    "an object": {"a": "b"},
}
BAD_VERSIONS = {
    "negative": "-1",
    "2^63": str(2**63),
    "5,000 digits": "1" * 5000,
    "a whole fraction": "0.0",
    "1e400": "1e400",
    "text": '"0"',
    "false": "false",
    "an array": "[0]",
}
BAD_WEB_ADDRESSES = {
    "ftp": "ftp://example.com/receipt",
    "javascript": "javascript:alert(1)",
    "javascript dressed up": "javascript://example.com/%0Aalert(1)",
    "data": "data:text/html,receipt",
    "file": "file:///etc/passwd",
    "no scheme": "example.com/receipt",
    "no scheme but slashes": "//example.com/receipt",
    "another scheme before": "blob:https://example.com/receipt",
    "no host": "https:///receipt",
    "a scheme alone": "https://",
    "a blank within": "https://example.com/a receipt",
    "a blank before": " https://example.com/receipt",
    "a blank behind": "https://example.com/receipt ",
    "no port": "https://example.com:port/receipt",
    "2,049 characters": "https://example.com/".ljust(2049, "a"),
    "backslashes": "https:\\\\example.com\\receipt",
}


@cases(BAD_IDS)
def test_what_is_no_id_names_no_consultation(api: ApiUnderTest, value: str) -> None:
    with api.nothing_written():
        answer = send_with_text(api, "create", "consultation_id", value)

    assert_problem(answer, 422, "consultation_id")


def test_the_largest_id_is_an_id(api: ApiUnderTest) -> None:
    with api.nothing_written():
        payment = send_with(api, "create", consultation_id=MAX_ID)
        consultation = api.people.booking.put("/consultations/500", {"patient_id": MAX_ID})

    assert_problem(payment, 404, code="consultation-not-found")
    assert_problem(consultation, 422, "patient_id")  # no such patient


@cases(BAD_IDS)
def test_what_is_no_id_names_no_patient(api: ApiUnderTest, value: str) -> None:
    with api.nothing_written():
        body = f'{{"patient_id": {value}}}'
        answer = api.people.booking.put("/consultations/500", data=body, content_type="application/json")

    assert_problem(answer, 422, "patient_id")


@cases(BAD_TEXTS | {"255 characters": "a" * 255, "nobody's": "nobody@example.com", "an admin's": "admin@example.com"})
def test_what_is_no_patients_address_names_no_patient(api: ApiUnderTest, value: Any) -> None:
    with api.nothing_written():
        answer = send_with(api, "consultation", patient_email=value)

    assert_problem(answer, 422, "patient_email")


def test_a_patient_is_named_in_one_way(api: ApiUnderTest) -> None:
    with api.nothing_written():
        answer = send_with(api, "consultation", patient_id=api.people.patient.id)

    assert_problem(answer, 422, "patient_id")


# Of a patient who may be new: what is wrong is named by its path.
BAD_PATIENTS: dict[str, tuple[Any, str]] = {
    "null": (None, "patient"),
    "a text": ("patient@example.com", "patient"),
    "an array": ([], "patient"),
    "no e-mail": ({"name": "Maria"}, "patient.email"),
    "no name": ({"email": "m@example.com"}, "patient.name"),
    "a member more": ({"email": "m@example.com", "name": "Maria", "role": "admin"}, "patient.role"),
    "no address": ({"email": "m.example.com", "name": "Maria"}, "patient.email"),
    "an address with a blank": ({"email": "m @example.com", "name": "Maria"}, "patient.email"),
    "an address with a line feed": ({"email": "m@example.com\n", "name": "Maria"}, "patient.email"),
    "an address of 255 characters": ({"email": f"{'m' * 243}@example.com", "name": "Maria"}, "patient.email"),
    "an admin's address": ({"email": "ADMIN@example.com", "name": "Maria"}, "patient.email"),
    "the booking system's address": ({"email": "booking@example.com", "name": "Maria"}, "patient.email"),
    "a blank name": ({"email": "m@example.com", "name": "  "}, "patient.name"),
    "a name with a control": ({"email": "m@example.com", "name": "Maria\x1b[31m"}, "patient.name"),
    "a name that turns the text": ({"email": "m@example.com", "name": "Maria\u202e"}, "patient.name"),
    "a name of 201 characters": ({"email": "m@example.com", "name": "M" * 201}, "patient.name"),
    "a number as name": ({"email": "m@example.com", "name": 5}, "patient.name"),
    "no language": ({"email": "m@example.com", "name": "Maria", "language": ""}, "patient.language"),
    "another language": ({"email": "m@example.com", "name": "Maria", "language": "English"}, "patient.language"),
    "a locale": ({"email": "m@example.com", "name": "Maria", "language": "en_US"}, "patient.language"),
}


@cases(BAD_PATIENTS)
def test_what_is_no_patient_is_not_added(api: ApiUnderTest, value: tuple[Any, str]) -> None:
    patient, field = value
    with api.nothing_written():
        answer = api.people.booking.put("/consultations/500", {"patient": patient})

    assert_problem(answer, 422, field)


BAD_DETAILS: dict[str, tuple[str, Any]] = {
    "a description of 201 characters": ("description", "a" * 201),
    "a description with NUL": ("description", NUL),
    "a description with a lone surrogate": ("description", LONE_SURROGATE),
    "a number as description": ("description", 5),
    "a time without a zone": ("starts_at", "2026-03-16T10:00:00"),
    "a date": ("starts_at", "2026-03-16"),
    "no such day": ("starts_at", "2026-02-30T10:00:00Z"),
    "no such time": ("starts_at", "2026-03-16T25:00:00Z"),
    "a blank for the T": ("starts_at", "2026-03-16 10:00:00Z"),
    "a zone by its name": ("starts_at", "2026-03-16T10:00:00 Asia/Manila"),
    "before the year 1": ("starts_at", "0001-01-01T00:00:00+08:00"),
    "seconds since 1970": ("starts_at", 1773626400),
    "no time": ("starts_at", ""),
    "no reference": ("reference", ""),
    "a reference with a blank": ("reference", "BK 77"),
    "a reference in other letters": ("reference", "\u0412K-77"),
    "a reference with a line feed": ("reference", "BK-77\n"),
    "a reference of 65 characters": ("reference", "B" * 65),
    "a number as reference": ("reference", 77),
}


@cases(BAD_DETAILS)
def test_what_a_consultation_cannot_have_is_refused(api: ApiUnderTest, value: tuple[str, Any]) -> None:
    field, wrong = value
    with api.nothing_written():
        answer = send_with(api, "consultation", **{field: wrong})

    assert_problem(answer, 422, field)


@cases(BAD_TEXTS | {"33 characters": "a" * 33, "capitals": "STRIPE", "a blank behind": "stripe ", "unknown": "cash"})
def test_a_payment_method_that_is_not_on_offer_is_refused(api: ApiUnderTest, value: Any) -> None:
    with api.nothing_written():
        answer = send_with(api, "create", payment_method=value)

    assert_problem(answer, 422, "payment_method")


@cases(
    BAD_TEXTS
    | {
        "256 characters": "a" * 256,
        "a blank": " ",
        "a blank before": " TXN-1",
        "a blank behind": "TXN-1 ",
        "a tab behind": "TXN-1\t",
        "a no-break space behind": "TXN-1\u00a0",
        "an ideographic space before": "\u3000TXN-1",
    }
)
def test_what_is_no_transaction_id_completes_nothing(api: ApiUnderTest, value: Any) -> None:
    with api.nothing_written():
        answer = send_with(api, "confirm", transaction_id=value)

    assert_problem(answer, 422, "transaction_id")


@pytest.mark.parametrize("value", ["a", "a" * 255, "TXN 1", "\U0001f4b3" * 255], ids=["1", "255", "blank", "cards"])
def test_a_transaction_id_of_1_to_255_characters_is_kept_as_it_is(people: People, rows: Rows, value: str) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]

    assert people.patient.confirm(payment_id, transaction_id=value).status_code == 200
    assert rows.one("SELECT transaction_id FROM payments") == {"transaction_id": value}


@cases({name: value for name, value in BAD_TEXTS.items() if name != "null"} | BAD_WEB_ADDRESSES)
def test_what_is_no_web_address_is_no_receipt(api: ApiUnderTest, value: Any) -> None:
    with api.nothing_written():
        answer = send_with(api, "confirm", receipt_url=value)

    assert_problem(answer, 422, "receipt_url")


@pytest.mark.parametrize("scheme", ["http", "https", "HTTPS"])
def test_a_web_address_of_2048_characters_is_a_receipt(people: People, rows: Rows, scheme: str) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    address = f"{scheme}://example.com/".ljust(2048, "a")

    assert people.patient.confirm(payment_id, receipt_url=address).status_code == 200
    assert rows.one("SELECT receipt_url FROM payments") == {"receipt_url": address}


@cases({name: value for name, value in BAD_TEXTS.items() if name not in ("null", "no characters", "a line feed")})
def test_what_is_no_text_is_no_reason(api: ApiUnderTest, value: Any) -> None:
    with api.nothing_written():
        answers = [send_with(api, "refund", reason=reason) for reason in (value, "a" * 501)]

    for answer in answers:
        assert_problem(answer, 422, "reason")


@cases(BAD_VERSIONS)
def test_what_is_no_version_changes_nothing(api: ApiUnderTest, value: str) -> None:
    with api.nothing_written():
        answers = [
            send_with_text(api, endpoint, "expected_version", value) for endpoint in ("confirm", "cancel", "refund")
        ]

    for answer in answers:
        assert_problem(answer, 422, "expected_version")


@cases(BAD_TEXTS | {"1,025 characters": "a" * 1025})
def test_what_is_no_email_or_password_is_not_looked_up(api: ApiUnderTest, value: Any) -> None:
    for member in ("email", "password"):
        assert_problem(send_with(api, "login", **{member: value}), 422, member)


def test_a_login_form_is_read_as_strictly_as_json(api: ApiUnderTest) -> None:
    forms = {
        "email": {"email": NUL, "password": "a"},
        "password": {"email": "a"},
        "x": {"email": "a", "password": "a", "x": "1"},
    }
    for wrong, form in forms.items():
        assert_problem(api.people.anonymous().post("/api/login", data=form), 422, wrong)


UNKNOWN_TO_ALL = ["x", "", "user_id", "status", "__proto__", "Amount", "a.b", NUL, LONE_SURROGATE, "\u0430mount"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_refuses_members_it_does_not_know(api: ApiUnderTest, endpoint: str) -> None:
    with api.nothing_written():
        answers = {name: send_with(api, endpoint, **{name: "completed"}) for name in UNKNOWN_TO_ALL}

    for name, answer in answers.items():
        assert_problem(answer, 422, name)


def test_every_wrong_field_is_named_at_once(api: ApiUnderTest) -> None:
    with api.nothing_written():
        answer = send_raw(api, "create", json.dumps({"consultation_id": "6", "amount": True, "x": 1}).encode())

    assert_problem(answer, 422, "consultation_id", "amount", "payment_method", "x")
