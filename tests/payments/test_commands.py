"""Payments from the command line."""

from datetime import UTC, datetime, timedelta

import pytest

from payments_app.payments import cli
from tests.support.commands import CommandRunner
from tests.support.people import People
from tests.support.rows import Rows


def test_the_list_is_newest_first_and_may_be_narrowed(commands: CommandRunner, people: People) -> None:
    made = [people.patient.pay(number).json["data"]["payment_id"] for number in (1, 2, 3)]
    people.patient.confirm(made[1])

    assert [row["id"] for row in commands.json("payments", "list")] == made[::-1]
    assert [row["id"] for row in commands.json("payments", "list", "--status", "completed")] == [made[1]]
    assert [row["id"] for row in commands.json("payments", "list", "--consultation", 3)] == [made[2]]
    assert [row["id"] for row in commands.json("payments", "list", "--limit", 2)] == made[:0:-1]
    assert len(commands.ok("payments", "list").splitlines()) == 4


def test_the_list_goes_on_beyond_one_batch(
    commands: CommandRunner, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "BATCH_SIZE", 2)
    made = [people.patient.pay(number).json["data"]["payment_id"] for number in range(1, 6)]

    assert [row["id"] for row in commands.json("payments", "list")] == made[::-1]


def test_one_payment_is_shown_with_all_that_happened_to_it(commands: CommandRunner, people: People) -> None:
    payment_id = people.patient.pay(1).json["data"]["payment_id"]
    people.patient.confirm(payment_id, "TXN-7")
    people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000})

    (shown,) = commands.json("payments", "show", payment_id)
    text = commands.ok("payments", "show", payment_id)

    assert shown["status"] == "partially_refunded"
    assert shown["transaction"] == "TXN-7"
    assert shown["left_to_refund"] == "4000.00"
    assert [event["event"] for event in shown["events"]][:2] == ["payment.created", "payment.completed"]
    assert [refund["status"] for refund in shown["refunds"]] == ["succeeded"]
    for word in ("TXN-7", "4000.00", "payment.completed", "succeeded"):
        assert word in text
    assert commands.refused("payments", "show", 999_999_999) == "Error: Payment not found"


def test_expire_ends_what_nobody_paid_in_time(commands: CommandRunner, people: People, rows: Rows) -> None:
    overdue, young = (people.patient.pay(number).json["data"]["payment_id"] for number in (1, 2))
    long_ago = rows.moment(datetime.now(UTC) - timedelta(minutes=31))
    rows.execute("UPDATE payments SET created_at = :at WHERE id = :id", at=long_ago, id=overdue)

    assert commands.json("payments", "expire") == [
        {"expired": 1, "paid": 0, "left": 0, "sessions_ended": 0, "refunds_lapsed": 0}
    ]
    assert commands.ok("payments", "expire") == "0 payments expired\n"

    kept = {row["id"]: row["status"] for row in rows.all("SELECT id, status FROM payments")}
    assert kept == {overdue: "expired", young: "pending"}
    assert people.patient.pay(1).status_code == 201
