"""Refunds from the command line: what the front desk sees, and what happens to the money."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.client import client_of
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.fake_stripe import FakeStripe
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import stripe_settings


@pytest.fixture
def payment_id(people: People) -> int:
    paid: int = people.patient.pay(5).json["data"]["payment_id"]
    people.patient.confirm(paid)
    return paid


def refunded(rows: Rows) -> int:
    return int(rows.one("SELECT refunded_minor FROM payments")["refunded_minor"])


def test_it_shows_what_it_will_do_and_asks(commands: CommandRunner, payment_id: int, rows: Rows) -> None:
    result = commands.run("refunds", "create", payment_id, "--amount", "1500", answer="y\n")

    assert result.exit_code == 0
    for shown in ("patient@example.com", "5000.00 PHP", "Return 1500.00 PHP now?"):
        assert shown in result.stderr
    assert f"refund 1 of payment {payment_id}: 1500.00 PHP succeeded" in result.stdout.replace(
        f"refund {rows.one('SELECT id FROM refunds')['id']} ", "refund 1 "
    )
    assert refunded(rows) == 150_000


def test_who_says_no_returns_nothing(commands: CommandRunner, payment_id: int, rows: Rows) -> None:
    result = commands.run("refunds", "create", payment_id, answer="n\n")

    assert result.exit_code == 0
    assert result.stdout == ""
    assert "no money was returned" in result.stderr
    assert rows.count("refunds") == 0


def test_the_same_key_again_never_refunds_twice(commands: CommandRunner, payment_id: int, rows: Rows) -> None:
    asked = ("refunds", "create", payment_id, "--amount", "1500", "--idempotency-key", "desk-1", "--yes")
    (first,) = commands.json(*asked)
    (again,) = commands.json(*asked)

    assert (first["replayed"], again["replayed"]) == (False, True)
    assert first["refund"] == again["refund"]
    assert first["idempotency_key"] == "desk-1"
    assert refunded(rows) == 150_000
    assert "Differs" in commands.refused("refunds", "create", payment_id, "--idempotency-key", "desk-1", "--yes")
    assert refunded(rows) == 150_000


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--amount", "5000.01"], "Error: amount: At most 5000.00 PHP can still be refunded."),
        (
            ["--amount", "1e3"],
            "Error: Invalid value for '--amount': '1e3' is not an amount: write it like 5000 or 5000.50",
        ),
        (["--amount", "0"], "Error: amount: At most 5000.00 PHP can still be refunded."),
        (["--reason", "x" * 501], "Error: The reason must be one line of at most 500 characters."),
        (["--reason", "two\nlines"], "Error: The reason must be one line of at most 500 characters."),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    commands: CommandRunner, payment_id: int, rows: Rows, arguments: list[str], line: str
) -> None:
    assert commands.refused("refunds", "create", payment_id, "--yes", *arguments) == line
    assert rows.count("refunds") == 0


def test_what_is_not_paid_or_not_there_cannot_be_refunded(commands: CommandRunner, people: People, rows: Rows) -> None:
    pending = people.patient.pay(6).json["data"]["payment_id"]

    assert "is pending" in commands.refused("refunds", "create", pending, "--yes")
    assert commands.refused("refunds", "create", 999_999_999, "--yes") == "Error: Payment not found"
    assert commands.refused("refunds", "show", 999_999_999) == "Error: Refund not found"
    assert rows.count("refunds") == 0


def test_a_payment_that_changed_while_it_was_asked_is_not_refunded(
    commands: CommandRunner, people: People, payment_id: int, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def agree_late(*_: object, **__: object) -> bool:
        people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000})
        return True

    monkeypatch.setattr("click.confirm", agree_late)
    result = commands.run("refunds", "create", payment_id)

    assert result.exit_code == 2
    assert "read it again before you change it" in result.stderr
    assert refunded(rows) == 100_000


def test_lists_are_aligned_for_people_and_exact_for_programs(commands: CommandRunner, payment_id: int) -> None:
    for amount in ("1500", "20.5"):
        commands.ok("refunds", "create", payment_id, "--amount", amount, "--yes")

    listed = commands.json("refunds", "list", "--payment", payment_id)
    table = commands.ok("refunds", "list").splitlines()

    assert [row["amount"] for row in listed] == ["20.50", "1500.00"]
    assert table[0].split() == [
        "id",
        "payment",
        "amount",
        "currency",
        "status",
        "by",
        "hand",
        "reason",
        "created",
        "settled",
    ]
    end_of_amount = table[0].index("amount") + 7
    assert [line[:end_of_amount].split()[-1] for line in table[1:]] == ["20.50", "1500.00"]
    assert commands.json("refunds", "list", "--limit", "1") == listed[:1]
    assert commands.json("refunds", "list", "--status", "unknown") == []
    assert commands.ok("refunds", "list", "--status", "failed") == "no refunds\n"
    (shown,) = commands.json("refunds", "show", listed[0]["id"])
    assert {name: shown[name] for name in listed[0]} == listed[0]


def test_commands_act_as_a_user_of_their_own_and_the_trail_names_their_operator(
    commands: CommandRunner, people: People, payment_id: int, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "maria")
    commands.ok("refunds", "create", payment_id, "--yes", "--idempotency-key", "mine")

    owner = rows.one("SELECT u.email FROM idempotency_keys k JOIN users u ON u.id = k.user_id WHERE k.key = 'mine'")
    assert owner == {"email": "commands@system.invalid"}
    events = people.admin.get(f"/payments/{payment_id}/events").json["data"]
    assert events[-1]["actor"] == "command:maria"
    answer = people.anonymous().post("/api/login", json={"email": owner["email"], "password": "none"})
    assert answer.status_code == 401


@pytest.fixture
def fake() -> Iterator[FakeStripe]:
    fake = FakeStripe()
    yield fake
    fake.close()


@pytest.fixture
def with_stripe(database: Database, people: People, fake: FakeStripe) -> Iterator[CommandRunner]:  # noqa: ARG001
    with commands_on(database.url, **stripe_settings(fake)) as commands:
        yield commands


@pytest.fixture
def paid_by_card(with_stripe: CommandRunner, people: People, fake: FakeStripe) -> int:
    patient = people.seen_by(with_stripe.app).patient
    payment_id: int = patient.pay(5).json["data"]["payment_id"]
    reference = patient.post(f"/payments/{payment_id}/checkout").json["data"]["reference"]
    fake.pay(reference)
    assert patient.confirm(payment_id, reference).status_code == 200
    return payment_id


def test_an_unknown_refund_says_what_to_do_and_resume_finds_out(
    with_stripe: CommandRunner, paid_by_card: int, fake: FakeStripe, rows: Rows
) -> None:
    fake.misbehave("drop", times=None)
    told = with_stripe.ok("refunds", "create", paid_by_card, "--yes")
    assert "unknown" in told
    assert "Do not refund it again" in told
    assert "payments resume" in told
    fake.behave()

    assert with_stripe.json("payments", "resume") == [
        {"refunds": {"succeeded": 1}, "payments": {"followed": 0, "failed": 0, "left": 0}}
    ]
    assert "none open" in with_stripe.ok("refunds", "resume")  # its old name
    assert len(fake.refunds) == 1
    assert refunded(rows) == 500_000


def test_a_declined_refund_is_one_line_with_the_reason(
    with_stripe: CommandRunner, paid_by_card: int, fake: FakeStripe, rows: Rows
) -> None:
    fake.misbehave("refuse")
    asked = ("refunds", "create", paid_by_card, "--yes", "--idempotency-key", "k")

    for _ in range(2):  # the second time from what was kept
        assert with_stripe.refused(*asked).startswith(
            "Error: The gateway declined the refund; no money was returned. Its reason: "
        )
    assert fake.count("POST", "/v1/refunds") == 1
    assert rows.one("SELECT refund_reserved_minor, refunded_minor FROM payments") == {
        "refund_reserved_minor": 0,
        "refunded_minor": 0,
    }


def test_what_resume_may_not_send_again_staff_give_up(
    with_stripe: CommandRunner, paid_by_card: int, fake: FakeStripe, rows: Rows
) -> None:
    fake.misbehave("error_before", times=None)
    with_stripe.ok("refunds", "create", paid_by_card, "--yes")
    (refund,) = with_stripe.json("refunds", "list")
    fake.behave()
    rows.execute("UPDATE refunds SET created_at = :at", at=rows.moment(datetime.now(UTC) - timedelta(hours=24)))

    assert with_stripe.json("payments", "resume")[0]["refunds"] == {"open": 1}
    assert fake.refunds == {}
    assert "is failed" in with_stripe.ok("refunds", "give-up", refund["id"], answer="y\n")
    assert fake.refunds == {}
    assert with_stripe.refused("refunds", "give-up", refund["id"], "--yes").startswith("Error: The refund is settled")
    with_stripe.ok("refunds", "create", paid_by_card, "--yes")
    assert refunded(rows) == 500_000
    assert len(fake.refunds) == 1


def test_what_was_given_up_and_is_there_after_all_is_looked_at(
    with_stripe: CommandRunner, paid_by_card: int, fake: FakeStripe, rows: Rows
) -> None:
    fake.misbehave("late", times=None)
    with_stripe.ok("refunds", "create", paid_by_card, "--yes")
    fake.behave()
    rows.execute("UPDATE refunds SET created_at = :at", at=rows.moment(datetime.now(UTC) - timedelta(hours=24)))
    with_stripe.ok("refunds", "give-up", rows.one("SELECT id FROM refunds")["id"], "--yes")

    fake.apply_late()
    (made,) = fake.refunds.values()
    event = fake.refund_event("created", made["id"])
    body = json.dumps(event).encode()
    headers = {"Stripe-Signature": fake.sign(body)}
    answer = client_of(with_stripe.app).post("/api/v1/webhooks/stripe", data=body, headers=headers)

    assert answer.status_code == 200
    kept = rows.one("SELECT status, needs_review FROM payments")
    assert (kept["status"], bool(kept["needs_review"])) == ("completed", True)
    (shown,) = with_stripe.json("payments", "resolve-review", paid_by_card, "--yes")
    assert shown["review"] is False
    assert with_stripe.json("payments", "reviewed", paid_by_card)[0]["review"] is False


def test_an_empty_key_is_no_key_forgotten(commands: CommandRunner, payment_id: int, rows: Rows) -> None:
    refused = commands.refused("refunds", "create", payment_id, "--yes", "--idempotency-key", "")

    assert "idempotency_key" in refused
    assert rows.count("refunds") == 0
