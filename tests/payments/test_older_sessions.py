"""Payments with several sessions, of which only the newest is open: the others may still be paid at the gateway."""

from collections.abc import Iterator

import pytest
from flask import Flask

from payments_app import clock
from payments_app.payments import expire, resume
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.expire import ExpiryResult
from payments_app.payments.models.event import AuditContext
from tests.gateway_webhooks import state_of, tell, trail_of
from tests.payments.test_checkout import problem
from tests.support.apps import app_with
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.fake_paymongo import FakePayMongo
from tests.support.paymongo_apps import PayMongoApp, fake_paymongo, paymongo_settings
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import stripe_app_on

SESSIONS = "/v1/checkout_sessions"

pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture(scope="module")
def module_shop(database: Database) -> Iterator[tuple[FakePayMongo, Flask]]:
    with fake_paymongo() as fake, app_with(database.url, **paymongo_settings(fake)) as app:
        yield fake, app


@pytest.fixture
def shop(module_shop: tuple[FakePayMongo, Flask], people: People) -> Iterator[PayMongoApp]:
    fake, app = module_shop
    yield PayMongoApp(fake, app, people.seen_by(app))
    fake.reset()


@pytest.fixture
def commands(shop: PayMongoApp, database: Database) -> Iterator[CommandRunner]:
    with commands_on(database.url, **paymongo_settings(shop.fake)) as runner:
        yield runner


def open_two(shop: PayMongoApp) -> tuple[int, str, str]:
    """A payment, its session that has ended at PayMongo, and the one that is open. The first one's wallet lives on."""
    payment_id, older = shop.open()
    shop.fake.end(older)
    return payment_id, older, str(shop.check_out(payment_id)["reference"])


def sessions(rows: Rows) -> list[tuple[int, str]]:
    return [(row["number"], row["status"]) for row in rows.all("SELECT * FROM gateway_sessions ORDER BY id")]


def ended_at_gateway(shop: PayMongoApp, session_id: str) -> bool:
    return bool(shop.fake.sessions[session_id]["attributes"]["status"] == "expired")


def expire_one(shop: PayMongoApp, payment_id: int) -> ExpiryResult:
    with shop.app.app_context():
        return expire.expire(payment_id, _context())


def resume_one(shop: PayMongoApp, payment_id: int) -> ExpiryResult:
    with shop.app.app_context():
        return resume.resume(payment_id, Deadlines.at(clock.now(), shop.app.config["SETTINGS"]), _context())


def _context() -> AuditContext:
    return AuditContext("command:test", None, clock.now())


# Money by the older one completes the payment: nobody is to pay by the newer one


@pytest.mark.parametrize("way", ["event of the session", "event of the payment", "confirm", "expire"])
def test_once_an_older_session_is_paid_the_newer_one_ends(shop: PayMongoApp, rows: Rows, way: str) -> None:
    payment_id, older, newer = open_two(shop)
    transaction_id = shop.fake.pay(older, late=True)

    if way == "confirm":
        assert shop.people.patient.confirm(payment_id, transaction_id).status_code == 200
    elif way == "expire":
        assert expire_one(shop, payment_id) == ExpiryResult.FOLLOWED
    else:
        is_session = way == "event of the session"
        event = shop.fake.session_paid(older) if is_session else shop.fake.payment_event("paid", transaction_id)
        shop.tell(event)
        shop.tell(event)

    assert ended_at_gateway(shop, newer)
    assert shop.fake.count("POST", f"{SESSIONS}/{newer}/expire") == 1
    assert sessions(rows) == [(1, "expired"), (2, "cancelled")]
    state = state_of(rows, payment_id)
    assert (state["status"], state["transaction_id"], state["version"]) == ("completed", transaction_id, 1)
    assert len(shop.fake.payments) == 1


@pytest.mark.parametrize("mode", ["error_before", "drop"])
def test_a_newer_session_that_the_gateway_has_not_ended_is_ended_by_the_timer(
    shop: PayMongoApp, rows: Rows, commands: CommandRunner, mode: str
) -> None:
    payment_id, older, newer = open_two(shop)
    shop.fake.pay(older, late=True)
    shop.fake.misbehave(mode, path=f"{SESSIONS}/{newer}/expire", times=2)  # type: ignore[arg-type]  # a mode of the two

    shop.tell(shop.fake.session_paid(older))

    assert state_of(rows, payment_id)["status"] == "completed"
    assert sessions(rows) == [(1, "expired"), (2, "open")]
    assert commands.json("payments", "expire") == [
        {"expired": 0, "paid": 0, "left": 1, "sessions_ended": 0, "refunds_lapsed": 0}
    ]
    assert sessions(rows) == [(1, "expired"), (2, "open")]
    assert "1 open session ended" in commands.ok("payments", "expire")
    assert ended_at_gateway(shop, newer)
    assert sessions(rows) == [(1, "expired"), (2, "cancelled")]
    asked = len(shop.fake.received)
    assert commands.ok("payments", "expire") == "0 payments expired\n"
    assert len(shop.fake.received) == asked
    assert state_of(rows, payment_id)["version"] == 1


def test_a_newer_session_that_was_paid_too_is_second_money_which_the_audit_names(
    shop: PayMongoApp, rows: Rows, commands: CommandRunner
) -> None:
    payment_id, older, newer = open_two(shop)
    first, second = shop.fake.pay(older, late=True), shop.fake.pay(newer)

    shop.tell(shop.fake.session_paid(older))
    shop.tell(shop.fake.session_paid(newer))

    state = state_of(rows, payment_id)
    assert (state["transaction_id"], state["needs_review"], state["version"]) == (first, True, 2)
    assert trail_of(rows, payment_id).count("payment.paid_again") == 1
    assert sessions(rows) == [(1, "expired"), (2, "succeeded")]
    (line,) = commands.ok("payments", "audit").splitlines()
    assert line.endswith(f"refund to make: in the dashboard of paymongo, all of transaction {second}")
    commands.ok("payments", "resolve-review", payment_id, "--yes")
    assert commands.ok("payments", "audit") == ""


def test_a_payment_with_one_session_costs_no_more_calls(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, session_id = shop.open()
    asked = len(shop.fake.received)

    transaction_id = shop.fake.pay(session_id)
    assert shop.people.patient.confirm(payment_id, transaction_id).status_code == 200

    assert [seen.method for seen in shop.fake.received[asked:]] == ["GET"]
    assert sessions(rows) == [(1, "open")]


# Money is on its way by the older one


def test_a_payment_whose_older_session_has_money_on_its_way_does_not_expire(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, older, newer = open_two(shop)
    transaction_id = shop.fake.start_processing(older)

    assert expire_one(shop, payment_id) == ExpiryResult.FOLLOWED

    assert state_of(rows, payment_id)["status"] == "processing"
    assert ended_at_gateway(shop, newer)
    assert problem(shop.people.patient.post(f"/payments/{payment_id}/checkout")) == (409, "invalid-transition")
    assert len(shop.fake.sessions) == 2
    assert resume_one(shop, payment_id) == ExpiryResult.LEFT
    assert shop.fake.pay(older, late=True) == transaction_id
    assert resume_one(shop, payment_id) == ExpiryResult.FOLLOWED
    state = state_of(rows, payment_id)
    assert (state["status"], state["transaction_id"]) == ("completed", transaction_id)


def test_money_on_its_way_by_an_older_session_that_does_not_come_fails_the_payment(
    shop: PayMongoApp, rows: Rows
) -> None:
    payment_id, older, newer = open_two(shop)
    transaction_id = shop.fake.start_processing(older)
    assert expire_one(shop, payment_id) == ExpiryResult.FOLLOWED

    shop.fake.tamper("payments", transaction_id, status="failed")

    assert resume_one(shop, payment_id) == ExpiryResult.FAILED
    assert state_of(rows, payment_id)["status"] == "failed"
    assert ended_at_gateway(shop, newer)


def test_a_payment_whose_older_session_cannot_be_asked_is_left(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, older, newer = open_two(shop)
    shop.fake.misbehave("error_before", method="GET", path=f"{SESSIONS}/{older}")

    assert expire_one(shop, payment_id) == ExpiryResult.LEFT

    assert (state_of(rows, payment_id)["status"], ended_at_gateway(shop, newer)) == ("pending", False)
    assert expire_one(shop, payment_id) == ExpiryResult.EXPIRED
    assert ended_at_gateway(shop, newer)


def test_a_payment_without_sessions_expires_though_its_gateway_is_not_configured_any_more(
    shop: PayMongoApp, database: Database
) -> None:
    payment_id = shop.create()
    with app_with(database.url) as app, app.app_context():
        assert expire.expire(payment_id, _context()) == ExpiryResult.EXPIRED


def test_a_payment_whose_older_session_is_gone_expires(shop: PayMongoApp, rows: Rows) -> None:
    payment_id, older, _ = open_two(shop)
    del shop.fake.sessions[older]

    assert expire_one(shop, payment_id) == ExpiryResult.EXPIRED

    assert sessions(rows) == [(1, "expired"), (2, "cancelled")]


def test_the_end_of_the_newer_session_does_not_fail_what_is_on_its_way_by_the_older(
    database: Database, people: People, rows: Rows
) -> None:
    settings = {"STRIPE_CHECKOUT": "hosted", "PUBLIC_URL": "https://pay.example.org"}
    with stripe_app_on(database.url, people, **settings) as shop:
        payment_id = shop.people.patient.pay(5).json["data"]["payment_id"]
        path = f"/payments/{payment_id}/checkout"
        older = shop.people.patient.post(path).json["data"]["reference"]
        shop.fake.submit(older, "later")
        submitted = dict(shop.fake.sessions[older])
        shop.fake.sessions[older].update(status="expired", payment_status="unpaid")
        newer = shop.people.patient.post(path).json["data"]["reference"]
        shop.fake.sessions[older].update(submitted)

        tell(shop, shop.fake.session_event("completed", older))
        assert state_of(rows, payment_id)["status"] == "processing"
        assert shop.fake.sessions[newer]["status"] == "expired"
        tell(shop, shop.fake.session_event("expired", newer))
        assert state_of(rows, payment_id)["status"] == "processing"
        shop.fake.finish(older, paid=True)
        tell(shop, shop.fake.session_event("async_payment_succeeded", older))

        assert state_of(rows, payment_id)["status"] == "completed"
        assert sessions(rows) == [(1, "expired"), (2, "cancelled")]
