"""Amounts and fees that cannot be meant: 422 and nothing written; and unusual ones that can (spec, sections 3, 5)."""

import pytest

from tests.api.assertions import ApiUnderTest, assert_problem
from tests.api.endpoints import cases, send_with_text
from tests.support.people import People
from tests.support.rows import Rows

# As they stand in the body: some of them no encoder would write.
BAD_AMOUNTS = {
    "three decimals": "5000.001",
    "a decimal too small for any float": "5000.0000000000000000000000000001",
    "three decimals as text": '"5000.001"',
    "an exponent as text": '"5e3"',
    "a capital exponent as text": '"5E3"',
    "an underscore": '"5_000"',
    "a blank before": '" 5000"',
    "a blank behind": '"5000 "',
    "a blank within": '"5 000"',
    "a line feed behind": r'"5000\n"',
    "a thousands comma": '"5,000"',
    "a decimal comma": '"5000,00"',
    "Arabic-Indic digits": '"\u0665\u0660\u0660\u0660"',
    "one Arabic-Indic digit": '"500\u0660"',
    "full-width digits": '"\uff15\uff10\uff10\uff10"',
    "hexadecimal": '"0x1388"',
    "a plus sign": '"+5000"',
    "a leading zero": '"05000"',
    "a bare point behind": '"5000."',
    "a bare point before": '".5"',
    "no characters": '""',
    "a currency": '"PHP 5000"',
    "NaN as text": '"NaN"',
    "Infinity as text": '"Infinity"',
    "NUL": r'"5000\u0000"',
    "a lone surrogate": r'"5000\ud800"',
    "negative": "-5000",
    "negative as text": '"-5000"',
    "zero": "0",
    "minus zero": "-0",
    "a hundredth below the least": "999.99",
    "a hundredth above the most": "10000000.01",
    "5,000 digits": "5" * 5000,
    "5,000 digits, negative": "-" + "5" * 5000,
    "5,000 digits as text": f'"{"5" * 5000}"',
    "5,000 decimals": "5000." + "1" * 5000,
    "1e400": "1e400",
    "-1e400": "-1e400",
    "1e999999": "1e999999",
    "1e1000000": "1e1000000",
    "1e9999999999999": "1e9999999999999",
    "-1e9999999999999": "-1e9999999999999",
    "1e-9999999999999": "1e-9999999999999",
    "1e9999999999999999999999": "1e9999999999999999999999",
    "1e-9999999999999999999999": "1e-9999999999999999999999",
    "true": "true",
    "false": "false",
    "null": "null",
    "an array": "[5000]",
    "an object": '{"value": 5000}',
}
BAD_FEES = [
    "three decimals",
    "an exponent as text",
    "an underscore",
    "Arabic-Indic digits",
    "a hundredth below the least",
    "a hundredth above the most",
    "5,000 digits",
    "1e9999999999999",
    "true",
]


@cases(BAD_AMOUNTS)
def test_what_is_no_amount_is_not_paid(api: ApiUnderTest, value: str) -> None:
    with api.nothing_written():
        answer = send_with_text(api, "create", "amount", value)

    assert_problem(answer, 422, "amount")


# Null is no bad fee: without one the patient may pay any amount.
@cases({name: BAD_AMOUNTS[name] for name in BAD_FEES})
def test_what_is_no_amount_is_no_fee(api: ApiUnderTest, value: str) -> None:
    with api.nothing_written():
        answer = send_with_text(api, "consultation", "fee", value)

    assert_problem(answer, 422, "fee")


# Null is all that is left, and a refund has no least amount; more than is left is refused for another reason.
@cases(
    {
        name: value
        for name, value in BAD_AMOUNTS.items()
        if name not in ("null", "a hundredth below the least", "a hundredth above the most")
    }
)
def test_what_is_no_amount_is_not_returned(api: ApiUnderTest, value: str) -> None:
    with api.nothing_written():
        answer = send_with_text(api, "refund", "amount", value)

    assert_problem(answer, 422, "amount")


@pytest.mark.parametrize(
    ("written", "minor"),
    [
        ("1e4", 1_000_000),
        ("1E+4", 1_000_000),
        ("50000e-1", 500_000),
        ('"5000"', 500_000),
        ('"5000.5"', 500_050),
        ("5000.05", 500_005),
        ("1000", 100_000),
        ("1000.00", 100_000),
        ("10000000", 1_000_000_000),
        ('"10000000.00"', 1_000_000_000),
    ],
)
def test_an_amount_is_taken_exactly_however_it_is_written(people: People, rows: Rows, written: str, minor: int) -> None:
    body = f'{{"consultation_id": 5, "payment_method": "stripe", "amount": {written}}}'

    answer = people.patient.post("/payments", data=body, content_type="application/json")

    assert answer.status_code == 201, answer.text
    assert rows.one("SELECT amount_minor FROM payments") == {"amount_minor": minor}
    assert answer.json["data"]["payment"]["amount"] * 100 == minor


def test_5000_and_5000_00_are_the_same_request(people: People, rows: Rows) -> None:
    first = people.patient.pay(amount=5000, key="one-key")
    again = people.patient.pay(amount="5000.00", key="one-key")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.data == first.data
    assert rows.count("payments") == 1
