"""The same refund, pressed twice without a key to tell by; and a refund judged by what the caller saw."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from payments_app import clock
from tests.support.apps import app_with
from tests.support.client import ApiResponse
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import refund

pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def payment_id(people: People) -> int:
    """A payment of 5000 for consultation 5, completed: version 1."""
    paid: int = people.patient.pay(5).json["data"]["payment_id"]
    assert people.patient.confirm(paid).status_code == 200
    return paid


def assert_repeated(answer: ApiResponse, refund_id: int) -> None:
    assert answer.status_code == 409
    assert answer.json["type"].endswith("/refund-repeated")
    assert answer.json["data"] == {"refund_id": refund_id}
    assert not answer.json["retryable"]


def refunds_of(rows: Rows) -> list[dict[str, Any]]:
    return rows.all("SELECT amount_minor, status FROM refunds ORDER BY id")


def test_the_same_refund_pressed_twice_is_made_once(people: People, payment_id: int, rows: Rows) -> None:
    first = refund(people.admin, payment_id, amount=500.50)

    again = refund(people.admin, payment_id, amount="500.50", reason="pressed once more")

    assert first.status_code == 200
    assert_repeated(again, first.json["data"]["refund"]["id"])
    assert refunds_of(rows) == [{"amount_minor": 50_050, "status": "succeeded"}]
    assert rows.count("idempotency_keys", "operation = 'refund'") == 1


def test_it_is_told_before_the_balance_that_the_first_one_used_up(people: People, payment_id: int) -> None:
    first = refund(people.admin, payment_id, amount=3000).json["data"]["refund"]

    assert_repeated(refund(people.admin, payment_id, amount=3000), first["id"])


def test_all_of_the_money_named_twice_is_told_so_too(people: People, payment_id: int, rows: Rows) -> None:
    """Not that the payment's status, which the first refund has changed, does not allow it."""
    first = refund(people.admin, payment_id, amount=5000).json["data"]["refund"]

    assert_repeated(refund(people.admin, payment_id, amount=5000), first["id"])
    assert rows.count("refunds") == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"amount": 500}, {"amount": 500, "allow_repeat": True}),
        ({"amount": 500}, {"amount": 500.01}),
        ({"amount": 500}, {"amount": 500, "key": "second"}),
        ({"amount": 500, "key": "first"}, {"amount": 500, "key": "second"}),
        ({"amount": 2500}, {}),  # all that is left, and so a refund that could not be made twice
    ],
)
def test_a_second_refund_that_is_meant_is_made(
    people: People, payment_id: int, rows: Rows, first: dict[str, Any], second: dict[str, Any]
) -> None:
    answers = [refund(people.admin, payment_id, **asked) for asked in (first, second)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert rows.count("refunds") == 2


def test_a_key_in_the_body_is_a_key(people: People, payment_id: int, rows: Rows) -> None:
    for number in range(2):
        assert refund(people.admin, payment_id, amount=500, idempotency_key=f"k-{number}").status_code == 200
    assert rows.count("refunds") == 2


def test_one_without_a_key_is_compared_with_one_that_had_a_key(people: People, payment_id: int) -> None:
    first = refund(people.admin, payment_id, key="k", amount=500).json["data"]["refund"]

    assert_repeated(refund(people.admin, payment_id, amount=500), first["id"])


def test_the_same_amount_of_another_payment_is_another_refund(people: People, payment_id: int, rows: Rows) -> None:
    other = people.patient.pay(6).json["data"]["payment_id"]
    people.patient.confirm(other, "TXN-2")

    assert [refund(people.admin, paid, amount=500).status_code for paid in (payment_id, other)] == [200, 200]
    assert rows.count("refunds") == 2


def test_a_refund_that_failed_is_tried_again(people: People, payment_id: int, rows: Rows) -> None:
    refund(people.admin, payment_id, amount=500)
    rows.execute("UPDATE refunds SET status = 'failed'")
    rows.execute("UPDATE credit_notes SET status = 'void', voided_at = issued_at")
    rows.execute("UPDATE payments SET refunded_minor = 0, status = 'completed'")
    rows.execute("UPDATE payment_events SET to_status = 'completed' WHERE event = 'refund.succeeded'")

    assert refund(people.admin, payment_id, amount=500).status_code == 200


def test_after_the_window_it_is_a_new_refund(people: People, payment_id: int, rows: Rows) -> None:
    refund(people.admin, payment_id, amount=500)

    rows.execute("UPDATE refunds SET created_at = :at", at=rows.moment(clock.now() - timedelta(seconds=599)))
    assert refund(people.admin, payment_id, amount=500).status_code == 409
    rows.execute("UPDATE refunds SET created_at = :at", at=rows.moment(clock.now() - timedelta(seconds=601)))
    assert refund(people.admin, payment_id, amount=500).status_code == 200


@pytest.fixture
def without_window(database: Database) -> Iterator[Flask]:
    with app_with(database.url, REFUND_REPEAT_WINDOW="0") as app:
        yield app


def test_the_window_can_be_closed(people: People, payment_id: int, without_window: Flask) -> None:
    admin = people.seen_by(without_window).admin

    assert [refund(admin, payment_id, amount=500).status_code for _ in range(3)] == [200, 200, 200]


def test_pressed_at_the_same_moment_it_is_made_once(people: People, payment_id: int, rows: Rows) -> None:
    pressed = 6
    gate, answers = threading.Barrier(pressed), []

    def press() -> None:
        gate.wait()
        answers.append(refund(people.admin, payment_id, amount=500))

    threads = [threading.Thread(target=press) for _ in range(pressed)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # One that lost every race is told to try again, and is then told the same.
    made = [answer for answer in answers if answer.status_code == 200]
    problems = {answer.json["type"].rpartition("/")[2] for answer in answers if answer.status_code != 200}
    assert len(made) == 1
    assert problems <= {"refund-repeated", "version-conflict", "database-busy"}
    assert refunds_of(rows) == [{"amount_minor": 50_000, "status": "succeeded"}]


@pytest.mark.parametrize("wrong", [1, "yes", "true", None, 0])
def test_only_true_and_false_are_words_for_it(people: People, payment_id: int, rows: Rows, wrong: object) -> None:
    answer = refund(people.admin, payment_id, amount=500, allow_repeat=wrong)

    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["allow_repeat"]
    assert rows.count("refunds") == 0


def test_the_command_asks_for_again(payment_id: int, rows: Rows, database: Database) -> None:
    with commands_on(database.url) as commands:
        command = ("refunds", "create", str(payment_id), "--amount", "500", "--yes")
        first = commands.run(*command)
        repeated = commands.run(*command)
        meant = commands.run(*command, "--again")

    assert (first.exit_code, repeated.exit_code, meant.exit_code) == (0, 2, 0)
    assert "--again" in repeated.stderr
    assert "requested a short time ago" in repeated.stderr
    assert rows.count("refunds") == 2


# What the caller believes is left


@pytest.mark.parametrize("expected", [5000, "5000.00"])
def test_a_refund_of_what_was_seen_is_made(people: People, payment_id: int, expected: object) -> None:
    assert refund(people.admin, payment_id, amount=500, expected_refundable=expected).status_code == 200


def test_where_another_amount_is_left_nothing_is_refunded(people: People, payment_id: int, rows: Rows) -> None:
    refund(people.admin, payment_id, amount=500.25)

    # All that is left would be another sum than the one that was agreed to.
    answer = refund(people.admin, payment_id, expected_refundable=5000)

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/refundable-changed")
    assert answer.json["data"] == {"refundable": 4499.75}
    assert rows.count("refunds") == 1
    assert refund(people.admin, payment_id, expected_refundable=4499.75).json["data"]["refund_amount"] == 4499.75


def test_of_a_payment_that_was_refunded_whole_it_says_that_nothing_is_left(people: People, payment_id: int) -> None:
    refund(people.admin, payment_id)

    answer = refund(people.admin, payment_id, amount=500, expected_refundable=5000)

    assert answer.json["type"].endswith("/refundable-changed")
    assert answer.json["data"] == {"refundable": 0}


def test_what_is_believed_is_no_part_of_the_request(people: People, payment_id: int, rows: Rows) -> None:
    first = refund(people.admin, payment_id, key="k", amount=500, expected_refundable=5000)
    again = refund(people.admin, payment_id, key="k", amount=500, expected_refundable=1, allow_repeat=True)

    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json == first.json
    assert rows.count("refunds") == 1


@pytest.mark.parametrize("wrong", [-1, "-1", 1.005, True, "much", "1e4"])
def test_an_expectation_that_is_no_amount_is_refused(
    people: People, payment_id: int, rows: Rows, wrong: object
) -> None:
    answer = refund(people.admin, payment_id, amount=500, expected_refundable=wrong)

    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["expected_refundable"]
    assert rows.count("refunds") == 0
