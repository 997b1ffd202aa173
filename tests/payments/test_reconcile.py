"""`payments reconcile` names each difference from a gateway's books, and no other."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import pytest
from sqlalchemy import Engine

from payments_app.payments import cli
from tests.support.apps import app_with
from tests.support.client import client_of
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.fake_gateway import Mode
from tests.support.paymongo_apps import PayMongoApp
from tests.support.people import People
from tests.support.raw_rows import Raw
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card, refund

DAY_SECONDS = 86_400

pytestmark = pytest.mark.parametrize(
    "database", ["postgresql", pytest.param("sqlite", marks=pytest.mark.repeat)], indirect=True, scope="session"
)


class Shop(Protocol):
    """An app and its gateway, whose customers and staff the test plays."""

    name: str
    fake: Any
    people: People
    commands: CommandRunner

    def paid(self, consultation_id: int) -> tuple[int, str]: ...
    def open(self, consultation_id: int) -> tuple[int, str]: ...
    def pay(self, session_id: str) -> str: ...
    def change_payment(self, transaction_id: str, **values: Any) -> None: ...
    def refund_there(self, transaction_id: str, amount: int) -> str: ...
    def settle_refund(self, refund_id: str, status: str) -> None: ...
    def forget(self, reference: str) -> None: ...
    def move_days(self, days: float) -> None: ...
    def tell_refund(self, refund_id: str) -> None: ...
    def fail(self, mode: Mode) -> None: ...


class CardShop:
    name = "stripe"

    def __init__(self, shop: StripeApp) -> None:
        self.fake, self.people, self.commands = shop.fake, shop.people, CommandRunner(shop.app)

    def open(self, consultation_id: int) -> tuple[int, str]:
        return open_by_card(self.people, consultation_id)

    def pay(self, session_id: str) -> str:
        self.fake.pay(session_id)
        return session_id

    def paid(self, consultation_id: int) -> tuple[int, str]:
        payment_id, reference = self.open(consultation_id)
        self.pay(reference)
        assert self.people.patient.confirm(payment_id, reference).status_code == 200
        return payment_id, reference

    def change_payment(self, transaction_id: str, **values: Any) -> None:
        charge = self.fake.charges[self.fake.intents[transaction_id]["latest_charge"]]
        if "amount" in values:
            charge["amount_captured"] = values["amount"]
            self.fake.tamper(transaction_id, amount_received=values["amount"])
        if "currency" in values:
            charge["currency"] = values["currency"].lower()
            self.fake.tamper(transaction_id, currency=values["currency"].lower())
        if "metadata" in values:
            charge["metadata"] = values["metadata"]
            self.fake.tamper(transaction_id, metadata=values["metadata"])

    def refund_there(self, transaction_id: str, amount: int) -> str:
        return str(self.fake.refund_in_dashboard(transaction_id, amount)["id"])

    def settle_refund(self, refund_id: str, status: str) -> None:
        self.fake.settle_refund(refund_id, status)

    def forget(self, reference: str) -> None:
        self.fake.refunds.pop(reference, None)
        if (intent := self.fake.intents.pop(reference, None)) is not None:
            del self.fake.charges[intent["latest_charge"]]

    def move_days(self, days: float) -> None:
        for each in (*self.fake.intents.values(), *self.fake.charges.values(), *self.fake.refunds.values()):
            each["created"] += int(days * DAY_SECONDS)

    def tell_refund(self, refund_id: str) -> None:
        self._tell(self.fake.refund_event("updated", refund_id))

    def fail(self, mode: Mode) -> None:
        self.fake.misbehave(mode, method="GET", path="/v1/", times=None)

    def _tell(self, event: dict[str, Any]) -> None:
        body = json.dumps(event).encode()
        headers = {"Stripe-Signature": self.fake.sign(body), "Content-Type": "application/json"}
        answer = client_of(self.commands.app).post("/api/v1/webhooks/stripe", data=body, headers=headers)
        assert answer.status_code == 200


class WalletShop:
    name = "paymongo"

    def __init__(self, shop: PayMongoApp) -> None:
        self.shop, self.fake, self.people, self.commands = shop, shop.fake, shop.people, CommandRunner(shop.app)

    def open(self, consultation_id: int) -> tuple[int, str]:
        return self.shop.open(consultation_id)

    def pay(self, session_id: str) -> str:
        return self.fake.pay(session_id)

    def paid(self, consultation_id: int) -> tuple[int, str]:
        return self.shop.paid(consultation_id)

    def change_payment(self, transaction_id: str, **values: Any) -> None:
        self.fake.tamper("payments", transaction_id, **values)

    def refund_there(self, transaction_id: str, amount: int) -> str:
        return str(self.fake.refund_in_dashboard(transaction_id, amount)["id"])

    def settle_refund(self, refund_id: str, status: str) -> None:
        self.fake.settle_refund(refund_id, status)

    def forget(self, reference: str) -> None:
        self.fake.refunds.pop(reference, None)
        self.fake.payments.pop(reference, None)

    def move_days(self, days: float) -> None:
        for each in (*self.fake.payments.values(), *self.fake.refunds.values()):
            each["attributes"]["created_at"] += int(days * DAY_SECONDS)

    def tell_refund(self, refund_id: str) -> None:
        self.shop.tell(self.fake.refund_event("payment.refund.updated", refund_id))

    def fail(self, mode: Mode) -> None:
        self.fake.misbehave(mode, method="GET", path="/v1/", times=None)


@pytest.fixture(params=["stripe", "paymongo"])
def shop(request: pytest.FixtureRequest, stripe_apps: Callable[..., StripeApp], paymongo_app: PayMongoApp) -> Shop:
    return CardShop(stripe_apps()) if request.param == "stripe" else WalletShop(paymongo_app)


def yesterday(shop: Shop, rows: Rows) -> None:
    """Let all of it have been yesterday, here and there."""
    shop.move_days(-1)
    move_ours(rows, days=-1)


def move_ours(rows: Rows, *, days: float) -> None:
    for table, column in (("payments", "completed_at"), ("payments", "updated_at"), ("refunds", "created_at")):
        if rows.is_sqlite:
            moved = f"strftime('%Y-%m-%d %H:%M:%f000', {column}, '{days * DAY_SECONDS} seconds')"
        else:
            moved = f"{column} + interval '{days * DAY_SECONDS} seconds'"
        rows.execute(f"UPDATE {table} SET {column} = {moved} WHERE {column} IS NOT NULL")


def compared(shop: Shop, *more: str) -> list[dict[str, Any]]:
    """The differences of yesterday and today."""
    result = shop.commands.run("payments", "reconcile", "--from", "yesterday", "--to", "today", "--json", *more)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == (1 if found else 0), result.output
    return found


def refunded(shop: Shop, rows: Rows, payment_id: int, amount: float) -> str:
    """The gateway's id of a refund that an admin has made here."""
    answer = refund(shop.people.admin, payment_id, amount=amount)
    assert answer.status_code in (200, 202), answer.json
    reference: str = rows.one("SELECT reference FROM refunds WHERE id = :id", id=answer.json["data"]["refund"]["id"])[
        "reference"
    ]
    return reference


def test_each_planted_difference_is_named_once_and_nothing_else(shop: Shop, rows: Rows) -> None:
    for consultation_id in (1, 2):
        payment_id, _ = shop.paid(consultation_id)
        refunded(shop, rows, payment_id, 10)
    paid_there_id, session_id = shop.open(3)
    unknown_here = shop.pay(session_id)
    unknown_there_id, unknown_there = shop.paid(4)
    other_amount_id, other_amount = shop.paid(5)
    shop.change_payment(other_amount, amount=400_000)
    other_currency_id, other_currency = shop.paid(6)
    shop.change_payment(other_currency, currency="USD")
    of_nobody_id, of_nobody = shop.paid(7)
    shop.change_payment(of_nobody, metadata={})
    rows.execute("UPDATE payments SET transaction_id = 'pay_of_another_one' WHERE id = :id", id=of_nobody_id)
    refunds_id, refunds_of = shop.paid(8)
    in_dashboard = shop.refund_there(refunds_of, 5_000)
    failed_there = refunded(shop, rows, refunds_id, 20)
    shop.settle_refund(failed_there, "failed")
    lost_there = refunded(shop, rows, refunds_id, 30)
    shop.forget(lost_there)
    unknown_refund = refunded(shop, rows, refunds_id, 40)
    lost_response = "reference = NULL, status = 'unknown', settled_at = NULL"
    rows.execute(f"UPDATE refunds SET {lost_response} WHERE reference = :reference", reference=unknown_refund)
    shop.forget(unknown_there)
    yesterday(shop, rows)

    found = compared(shop)

    assert {(each["kind"], each["subject"], each["reference"], each["payment_id"]) for each in found} == {
        ("status", "payment", unknown_here, paid_there_id),
        ("here_not_there", "payment", unknown_there, unknown_there_id),
        ("amount", "payment", other_amount, other_amount_id),
        ("currency", "payment", other_currency, other_currency_id),
        ("there_not_here", "payment", of_nobody, None),
        ("here_not_there", "payment", "pay_of_another_one", of_nobody_id),
        ("there_not_here", "refund", in_dashboard, None),
        ("status", "refund", failed_there, refunds_id),
        ("here_not_there", "refund", lost_there, refunds_id),
        ("status", "refund", unknown_refund, refunds_id),
    }
    assert len(found) == 10
    assert {each["gateway"] for each in found} == {shop.name}
    plain = shop.commands.run("payments", "reconcile", "--gateway", shop.name, "--to", "today")
    line = f"{shop.name}  amount  payment {other_amount}  payment {other_amount_id}  there 4000"
    assert any(each.startswith(line) for each in plain.stdout.splitlines()), plain.stdout
    assert len(plain.stdout.splitlines()) == 10


def test_books_that_agree_differ_in_nothing(shop: Shop, rows: Rows, engine: Engine) -> None:
    """Money before and after midnight, a refund on its way, one that failed, money paid twice, and what nobody paid."""
    shop.paid(1)
    shop.open(2)
    shop.fake.start_processing(shop.open(8)[1])  # its money takes days
    pending_id, pending = shop.paid(3)
    shop.fake.refunds_start_as = "pending"
    refunded(shop, rows, pending_id, 10)
    made_there = shop.refund_there(pending, 1_000)
    shop.tell_refund(made_there)
    shop.fake.refunds_start_as = "succeeded"
    _, failed_of = shop.paid(4)
    failed_there = shop.refund_there(failed_of, 1_000)
    shop.settle_refund(failed_there, "failed")  # no money moved, and nobody told us
    twice_id, _ = shop.paid(5)
    _, second_session = shop.open(6)
    second = shop.pay(second_session)
    rows.execute(
        "INSERT INTO payment_events (payment_id, event, from_status, to_status, version, actor, reference, created_at)"
        " SELECT id, 'payment.paid_again', status, status, version, 'gateway:webhook', :second, created_at"
        " FROM payments WHERE id = :id",
        id=twice_id,
        second=second,
    )
    shop.refund_there(second, 1_000)
    in_total_id, in_total_of = shop.paid(7)
    shop.refund_there(in_total_of, 1_000)  # of which a webhook gave the total alone
    Raw(engine).refund(in_total_id, amount_minor=2_000, reference=None, made_elsewhere=True, gateway=shop.name)
    yesterday(shop, rows)
    # Paid at the gateway before the time that is compared, and completed here within it; and the other way round.
    shop.move_days(-0.5)
    assert compared(shop, "--gateway", shop.name) == []
    shop.move_days(-30)
    assert compared(shop) == []
    shop.move_days(30)
    move_ours(rows, days=-30)
    assert compared(shop) == []


@pytest.mark.parametrize("shop", ["paymongo"], indirect=True)
def test_late_money_and_second_money_that_a_webhook_has_told_of_agree(shop: WalletShop, rows: Rows) -> None:
    late_id, late_session = shop.open(1)
    assert shop.people.patient.post(f"/payments/{late_id}/cancel").status_code == 200
    shop.fake.pay(late_session, late=True)
    shop.shop.tell(shop.fake.session_paid(late_session))
    twice_id, older_session = shop.open(2)
    shop.fake.end(older_session)
    assert shop.shop.check_out(twice_id)["reference"] != older_session
    for session_id in (older_session, shop.shop.check_out(twice_id)["reference"]):
        shop.fake.pay(session_id, late=True)
        shop.shop.tell(shop.fake.session_paid(session_id))
    assert rows.count("payments", "needs_review") == 2
    assert rows.count("payment_events", "event IN ('payment.quarantined', 'payment.paid_again')") == 2
    yesterday(shop, rows)

    assert compared(shop) == []


@pytest.mark.parametrize("mode", ["drop", "error", "limited"])
def test_a_gateway_that_does_not_answer_is_exit_3_and_nothing_is_said_of_it(mode: Mode, shop: Shop, rows: Rows) -> None:
    _, session_id = shop.open(1)
    shop.pay(session_id)
    yesterday(shop, rows)
    shop.fail(mode)

    result = shop.commands.run("payments", "reconcile", "--from", "yesterday", "--to", "today")

    assert (result.exit_code, result.stdout) == (3, "")
    assert f"{shop.name}: nothing is known: " in result.stderr


def test_pages_are_read_to_the_end(shop: Shop, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payments_app.gateways.stripe.client.PAGE_SIZE", 2)
    monkeypatch.setattr("payments_app.gateways.paymongo.api.PAGE_SIZE", 2)
    monkeypatch.setattr("payments_app.payments.reconcile.BATCH_SIZE", 3)
    sessions = [shop.open(consultation_id) for consultation_id in range(1, 6)]
    for _, session_id in sessions:
        shop.pay(session_id)
    yesterday(shop, rows)

    # PayMongo's lists have no promised order; where they say nothing of a next page, a full page may have one.
    for oldest_first, left_out in ((False, set()), (True, set()), (False, {"page.has_more"})):
        shop.fake.lists_oldest_first, shop.fake.left_out = oldest_first, left_out
        found = {each["payment_id"] for each in compared(shop)}
        assert found == {payment_id for payment_id, _ in sessions}


def test_what_is_new_is_left_out_and_what_cannot_be_compared_is_said(shop: Shop, rows: Rows) -> None:
    _, session_id = shop.open(1)
    shop.pay(session_id)
    assert compared(shop) == []  # it was paid a moment ago, and its webhook may be on the way
    yesterday(shop, rows)
    assert len(compared(shop)) == 1
    refused = shop.commands.refused
    assert "not a day" in refused("payments", "reconcile", "--from", "31.01.2026")
    assert "nothing to compare" in refused("payments", "reconcile", "--from", "today", "--to", "yesterday")
    assert "manual is not configured, or" in refused("payments", "reconcile", "--gateway", "manual")
    far = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    assert "nothing to compare" in refused("payments", "reconcile", "--from", far, "--to", far)


def test_without_such_a_gateway_there_is_nothing_to_compare(database: Database) -> None:
    with commands_on(database.url) as commands:
        result = commands.run("payments", "reconcile")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to compare" in result.stderr


def test_days_are_the_clinics(database: Database) -> None:
    with app_with(database.url, CLINIC_TIMEZONE="Asia/Manila") as app, app.app_context():
        since, until = cli._period(date(2026, 1, 31), date(2026, 1, 31))

    assert (since, until) == (datetime(2026, 1, 30, 16, tzinfo=UTC), datetime(2026, 1, 31, 16, tzinfo=UTC))
