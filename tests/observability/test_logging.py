"""What is logged: each request and each deed once, on one line, when it is true; and nothing secret."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts import repository as accounts
from payments_app.db.errors import RetryTransaction
from payments_app.db.transaction import write_transaction
from payments_app.observability.logging import _chain, get_logger
from payments_app.payments import expire
from payments_app.payments.models.event import AuditContext
from payments_app.payments.repository import get_for_update
from tests.gateway_webhooks import tell
from tests.support.apps import PRODUCTION, app_with, engine_of
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.log_lines import LogLines, listening
from tests.support.people import PASSWORD, People
from tests.support.rows import Rows
from tests.support.service import Service
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card, refund

HOSTILE = (
    "x\r\n2026-11-22T00:00:00Z [info     ] Payment: confirmed"
    '\x1b[2J\u2028\u202e\u200b\u061c\x00\x85"}\n{"event": "forged"}'
)
CARD = "4242424242424242"


@pytest.fixture
def lines() -> Iterator[LogLines]:
    with listening() as lines:
        yield lines


def context() -> AuditContext:
    return AuditContext("command:test", None, clock.now())


def test_a_request_is_one_line_under_the_id_that_its_answer_and_its_event_have(
    people: People, lines: LogLines, rows: Rows
) -> None:
    answer = people.patient.send(
        "POST",
        "/payments",
        {"X-Request-ID": "from-the-proxy.1"},
        json={"consultation_id": 5, "amount": 5000, "payment_method": "stripe"},
    )

    (line,) = [event for event in lines.events if event["event"] == "Request"]
    assert isinstance(line.pop("ms"), float)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "Request",
        "logger": "payments_app.observability.request_log",
        "request_id": "from-the-proxy.1",
        "user": people.patient.id,
        "route": "/api/v1/payments",
        "method": "POST",
        "status": 201,
    }
    assert answer.headers["X-Request-ID"] == "from-the-proxy.1"
    assert rows.one("SELECT request_id FROM payment_events") == {"request_id": "from-the-proxy.1"}
    assert {event["request_id"] for event in lines.events if event["logger"].startswith("payments_app")} == {
        "from-the-proxy.1"
    }


def test_a_request_without_a_user_or_a_route_says_so(people: People, lines: LogLines) -> None:
    people.anonymous().get(f"/no/such/{CARD}")
    people.patient.put("/consultations/7", {})

    nowhere, refused = lines.of("Request")
    assert (nowhere["user"], nowhere["route"], nowhere["status"]) == (None, "unknown", 404)
    assert (refused["user"], refused["route"], refused["status"]) == (
        people.patient.id,
        "/api/v1/consultations/<id:consultation_id>",
        403,
    )
    assert CARD not in lines.text


def test_every_deed_is_told_with_its_ids(people: People, lines: LogLines) -> None:
    payment_id = people.patient.pay(5, key="k").json["data"]["payment_id"]
    people.patient.pay(5, key="k")
    people.patient.pay(5, key="other")
    people.patient.confirm(payment_id)
    people.patient.confirm(payment_id)
    refund(people.admin, payment_id, "r", amount=1000)
    refund(people.admin, payment_id, "r", amount=1000)
    cancelled_id = people.patient.pay(6).json["data"]["payment_id"]
    people.patient.post(f"/payments/{cancelled_id}/cancel")
    expired_id = people.patient.pay(7).json["data"]["payment_id"]
    with people.app.app_context():
        expire.expire(expired_id, context())

    told = [(line["event"], line.get("payment_id"), line.get("layer")) for line in lines.of("Payment", "Refund")]
    assert told == [
        ("Payment: created", payment_id, None),
        ("Payment: duplicate", None, "key"),
        ("Payment: duplicate", payment_id, "index"),
        ("Payment: confirmed", payment_id, None),
        ("Payment: duplicate", payment_id, "key"),
        ("Refund: requested", payment_id, None),
        ("Refund: succeeded", payment_id, None),
        ("Payment: duplicate", payment_id, "key"),
        ("Payment: created", cancelled_id, None),
        ("Payment: cancelled", cancelled_id, None),
        ("Payment: created", expired_id, None),
        ("Payment: expired", expired_id, None),
    ]
    confirmed = lines.of("Payment")[3]
    assert (confirmed["actor"], confirmed["from_status"], confirmed["version"]) == (
        f"patient:{people.patient.id}",
        "pending",
        1,
    )


def test_what_gateways_tell_is_told_and_what_staff_have_to_look_at_is_a_warning(
    stripe_app: StripeApp, lines: LogLines
) -> None:
    late_id, late = open_by_card(stripe_app.people, 5)
    with stripe_app.app.app_context():
        expire.expire(late_id, context())
    stripe_app.people.patient.pay(5)
    event = stripe_app.fake.intent_event("succeeded", late)
    event["data"]["object"].update(status="succeeded", amount_received=500_000)
    tell(stripe_app, event)
    tell(stripe_app, event)
    stripe_app.people.anonymous().post("/api/v1/webhooks/stripe", data=b"{}", headers={"Stripe-Signature": "t=1,v1=0"})

    assert lines.names("Webhook") == ["Webhook: processed", "Webhook: duplicate", "Webhook: refused"]
    assert [line["payment_id"] for line in lines.of("Webhook")[:2]] == [late_id, late_id]
    # That it was tried to complete the payment, and undone, is told to nobody.
    assert lines.names("Payment") == [
        "Payment: created",
        "Payment: expired",
        "Payment: created",
        "Payment: quarantined",
    ]
    assert [line["level"] for line in lines.events if line["event"] == "Payment: quarantined"] == ["warning"]


def test_a_refund_tells_what_became_of_it(stripe_app: StripeApp, lines: LogLines) -> None:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    stripe_app.fake.misbehave("refuse")
    refund(stripe_app.people.admin, payment_id, amount=1000)
    stripe_app.fake.misbehave("drop")
    refund(stripe_app.people.admin, payment_id, amount=1000)

    assert lines.names("Refund") == ["Refund: requested", "Refund: failed", "Refund: requested", "Refund: unknown"]
    assert len({line["refund_id"] for line in lines.of("Refund")}) == 2


def test_what_was_rolled_back_is_told_to_nobody(people: People, lines: LogLines) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    attempts = []

    @write_transaction
    def cancel_at_the_second_attempt(session: Session) -> None:
        attempts.append("one")
        get_for_update(session, payment_id).cancel(context())
        session.flush()
        if len(attempts) == 1:
            raise RetryTransaction

    with people.app.app_context():
        cancel_at_the_second_attempt()

    assert len(attempts) == 2
    assert lines.names("Payment") == ["Payment: created", "Payment: cancelled"]


def test_no_value_makes_a_line_of_its_own(lines: LogLines) -> None:
    ours, theirs = get_logger("payments_app.test"), logging.getLogger("library")
    ours.info("Payment: created", key=HOSTILE)
    ours.info(HOSTILE, key=[HOSTILE])
    theirs.warning("It says %s", HOSTILE)
    theirs.error("It fails", exc_info=ValueError(HOSTILE))

    assert len(lines.events) == 4
    assert lines.events[0]["key"] == HOSTILE
    beginnings = [line for line in lines.to_read.splitlines() if not line.startswith("    ")]
    assert len(beginnings) == 4
    assert lines.to_read.replace("\n", "").isprintable()


@pytest.fixture
def broken_login(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on, looking a user up is a bug of ours, with the password at hand."""

    def fail(email: str) -> None:
        raise RuntimeError(f"nobody thought of {email}")

    return lambda: monkeypatch.setattr(accounts, "find_credentials", fail)


def test_nothing_secret_is_logged_however_talkative_the_loggers(
    stripe_app: StripeApp, lines: LogLines, rows: Rows, broken_login: Callable[[], None]
) -> None:
    people, fake = stripe_app.people, stripe_app.fake
    login = {"email": people.patient.email, "password": PASSWORD}
    token = people.anonymous().post("/api/login", json=login).json["token"]
    people.anonymous().post("/api/login", data=login)
    people.anonymous().post("/api/login", json={**login, "password": "wrong but mine"})
    people.anonymous().get("/api/v1/me", headers={"Authorization": f"Bearer {token[:-9]}forgedbit"})
    people.patient.post("/payments", {"consultation_id": 5, "card_number": CARD})

    payment_id, reference = open_by_card(people, 5)
    client_secret = people.patient.post(f"/payments/{payment_id}/checkout").json["data"]["client_secret"]
    fake.pay(reference)
    event = fake.intent_event("succeeded", reference)
    event["data"]["object"]["charges"] = {"data": [{"payment_method_details": {"card": {"number": CARD}}}]}
    body = json.dumps(event).encode()
    signature = fake.sign(body)
    for signed in (signature, signature[:-6] + "000000"):
        people.anonymous().post("/api/v1/webhooks/stripe", data=body, headers={"Stripe-Signature": signed})
    people.patient.confirm(payment_id, reference)
    refund(people.admin, payment_id, amount=1000)
    fake.misbehave("error")
    refund(people.admin, payment_id, amount=1001)
    broken_login()
    assert people.anonymous().post("/api/login", json=login).status_code == 500

    assert lines.names("Webhook") == ["Webhook: processed", "Webhook: refused"]
    (unexpected,) = [event for event in lines.events if event["event"] == "Unexpected error"]
    assert "RuntimeError: nobody thought of" in unexpected["exception"]
    assert {event["logger"].partition(".")[0] for event in lines.events} >= {"payments_app", "stripe", "urllib3"}
    settings = stripe_app.app.config["SETTINGS"]
    secrets = [
        PASSWORD,
        "wrong but mine",
        token,
        token.rpartition(".")[2],
        token[:-9],
        people.patient.token,
        people.admin.token,
        client_secret,
        signature.rpartition("=")[2],
        CARD,
        fake.api_key,
        fake.webhook_secret,
        settings.jwt_secret_key,
        rows.one("SELECT password_hash FROM users WHERE id = :id", id=people.patient.id)["password_hash"],
    ]
    assert [secret for secret in secrets if secret in lines.text] == []


def test_of_a_row_that_postgresql_refuses_the_log_has_the_reason_and_not_the_values(
    databases: Callable[[str], Database], lines: LogLines
) -> None:
    row, name = text("INSERT INTO id_blocks VALUES (:name)"), "Maria's\nDETAIL:  diagnosis"
    refused = pytest.raises(IntegrityError, match=r"Failing row contains \(Maria")
    with app_with(databases("postgresql").url) as app, engine_of(app).connect() as connection, refused as refusal:
        connection.execute(row, {"name": name})
    logging.getLogger("library").error("It fails", exc_info=refusal.value)

    (event,) = [event for event in lines.events if event["event"] == "It fails"]
    assert "violates not-null constraint (23502)" in event["exception"]
    assert event["exception"].count("IntegrityError") == 1
    assert [word for word in ("Failing", "Maria", "diagnosis") if word in lines.text] == []


def test_an_error_that_is_its_own_cause_is_told_once() -> None:
    error = ValueError("a circle")
    error.__cause__ = error

    assert list(islice(_chain(error), 3)) == [error]


def test_commands_leave_telling_to_their_own_words(database: Database, people: People, rows: Rows) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    rows.execute("UPDATE payments SET created_at = :old", old=rows.moment(clock.now() - timedelta(days=30)))

    with commands_on(database.url) as commands, listening("payments_app") as lines:
        assert commands.json("payments", "expire") == [
            {"expired": 1, "paid": 0, "left": 0, "sessions_ended": 0, "refunds_lapsed": 0}
        ]

    assert rows.one("SELECT status FROM payments WHERE id = :id", id=payment_id) == {"status": "expired"}
    assert [event for event in lines.events if event["logger"].startswith("payments_app")] == []


def test_in_production_every_line_is_json_gunicorns_own_too(databases: Callable[[str], Database]) -> None:
    with Service.started(databases("postgresql").url, 1, **PRODUCTION) as service:
        pass
    # But for the lines by which this test knows that each worker has answered.
    written = [line for line in service.log.read_text().splitlines() if not line.startswith("served by")]
    events = [json.loads(line) for line in written]

    assert {(event["logger"], event["event"].split()[0]) for event in events} >= {
        ("gunicorn.error", "Listening"),
        ("gunicorn.error", "Booting"),
        ("payments_app.observability.request_log", "Request"),
    }
