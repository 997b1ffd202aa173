"""Random walks over PayMongo's bad manners: whatever happened, both sides' books agree once all events have arrived.

A walk mixes what patients, staff, PayMongo's customers and its dashboard do with lost answers, late effects, events
that come twice, late or never, and members that are missing. A failure names its seed, which makes the same walk again.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask

from payments_app import clock
from payments_app.payments.expire import expire
from payments_app.payments.models.event import AuditContext
from tests.gateway_webhooks import state_of, trail_of
from tests.support.admissions import call_however_silent
from tests.support.apps import app_with
from tests.support.databases import Database
from tests.support.dialects import on_postgresql
from tests.support.fake_gateway import Mode, Wire
from tests.support.fake_paymongo import FakePayMongo
from tests.support.paymongo_apps import PayMongoApp, fake_paymongo, paymongo_settings
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import refund, resume_refunds

pytestmark = pytest.mark.usefixtures("audited")

SEEDS = range(6)
STEPS = 60
TROUBLES: list[Mode] = ["drop", "error", "error_before", "late", "refuse"]
LEFT_OUT = ["payment.metadata", "session.metadata", "payment.refunds", "refund.metadata", "page.has_more"]


@pytest.fixture(scope="module")
def module_shop(database: Database) -> Iterator[tuple[FakePayMongo, Flask]]:
    with fake_paymongo() as fake, app_with(database.url, **paymongo_settings(fake)) as app:
        call_however_silent(app)
        yield fake, app


class Walk:
    """One walk. Each method that begins with ``do_`` is a step; it may find that there is nothing to do."""

    def __init__(self, shop: PayMongoApp, rows: Rows, seed: int) -> None:
        self.shop = shop
        self.rows = rows
        self.fake = shop.fake
        self.choose = random.Random(seed)  # noqa: S311  # no secret hangs on it
        self.told: list[Wire] = []

    def step(self) -> None:
        steps = [name for name in dir(self) if name.startswith("do_")]
        # Opening and paying are what all the rest needs.
        getattr(self, self.choose.choice([*steps, *["do_check_out", "do_pay", "do_tell", "do_refund"] * 3]))()

    def any_of(self, things: Any) -> Any:
        return self.choose.choice(list(things)) if things else None

    @property
    def payment_ids(self) -> list[int]:
        return [row["id"] for row in self.rows.all("SELECT id FROM payments ORDER BY id")]

    def keep(self, event: Wire) -> None:
        """Perhaps it is never delivered, or more than once."""
        self.told.append(event)

    def do_create(self) -> None:
        consultation_id = self.choose.choice([5, 6])
        assert self.shop.people.patient.pay(consultation_id, payment_method="gcash").status_code in (201, 409)

    def do_check_out(self) -> None:
        payment_id = self.any_of(self.payment_ids)
        if payment_id is None:
            return self.do_create()
        answer = self.shop.people.patient.post(f"/payments/{payment_id}/checkout")
        assert answer.status_code in (200, 409, 502, 503), answer.json
        return None

    def do_pay(self) -> None:
        session_id = self.any_of(self.fake.sessions)
        if session_id is not None and not self.is_paid(session_id):
            transaction_id = self.fake.pay(session_id, late=True)
            self.keep(self.fake.session_paid(session_id))
            self.keep(self.fake.payment_event("paid", transaction_id))

    def do_decline(self) -> None:
        session_id = self.any_of(self.fake.sessions)
        if session_id is not None and not self.is_paid(session_id):
            self.keep(self.fake.payment_event("failed", self.fake.decline(session_id)))

    def do_end_at_paymongo(self) -> None:
        session_id = self.any_of(self.fake.sessions)
        if session_id is not None and not self.is_paid(session_id):
            self.fake.end(session_id)

    def do_tell(self) -> None:
        event = self.any_of(self.told)
        if event is not None:
            body = json.dumps(event).encode()
            assert self.shop.send(body, self.fake.sign(body)).status_code in (200, 503)

    def do_confirm(self) -> None:
        payment_id, transaction_id = self.any_of(self.payment_ids), self.any_of(self.fake.payments)
        if payment_id is not None and transaction_id is not None:
            answer = self.shop.people.patient.confirm(payment_id, transaction_id)
            assert answer.status_code in (200, 402, 409, 503), answer.json

    def do_cancel(self) -> None:
        payment_id = self.any_of(self.payment_ids)
        if payment_id is not None:
            answer = self.shop.people.patient.post(f"/payments/{payment_id}/cancel")
            assert answer.status_code in (200, 409, 503), answer.json

    def do_expire(self) -> None:
        payment_id = self.any_of(self.payment_ids)
        if payment_id is not None:
            with self.shop.app.app_context():
                expire(payment_id, AuditContext("system:test", None, clock.now()))

    def do_refund(self) -> None:
        payment_id = self.any_of(self.payment_ids)
        if payment_id is not None:
            amount = self.choose.choice([1000, 1500, 2000])
            answer = refund(self.shop.people.admin, payment_id, key=f"k{self.choose.random()}", amount=amount)
            assert answer.status_code in (200, 202, 402, 409, 422), answer.json

    def do_refund_in_dashboard(self) -> None:
        transaction_id = self.any_of(self.paid_ids())
        if transaction_id is not None:
            with suppress(Exception):  # nothing is left of it
                made = self.fake.refund_in_dashboard(transaction_id, self.choose.choice([700, 100_000]))
                self.keep(self.fake.refund_event("refund.succeeded", made["id"]))

    def do_settle_refund(self) -> None:
        refund_id = self.any_of(self.fake.refunds)
        if refund_id is not None:
            status = self.choose.choice(["succeeded", "succeeded", "failed"])
            if self.fake.refunds[refund_id]["attributes"]["status"] != "failed":
                self.fake.settle_refund(refund_id, status)
            self.keep(self.fake.refund_event("payment.refund.updated", refund_id))

    def do_tell_of_refunds(self) -> None:
        transaction_id = self.any_of(self.paid_ids())
        if transaction_id is not None:
            self.keep(self.fake.payment_event("refunded", transaction_id))

    def do_resume(self) -> None:
        resume_refunds(self.shop.app)

    def do_misbehave(self) -> None:
        method, path = self.choose.choice(
            [
                ("POST", "/v1/checkout_sessions"),
                ("POST", "/v1/refunds"),
                ("GET", "/v1/checkout_sessions"),
                ("GET", "/v1/payments"),
                ("GET", "/v1/refunds"),
            ]
        )
        modes = TROUBLES if method == "POST" else TROUBLES[:3]
        self.fake.misbehave(self.choose.choice(modes), method=method, path=path)

    def do_apply_late(self) -> None:
        self.fake.apply_late()

    def do_change_manners(self) -> None:
        self.fake.left_out = {name for name in LEFT_OUT if self.choose.random() < 0.3}
        self.fake.refunds_start_as = self.choose.choice(["succeeded", "pending"])
        self.fake.lists_oldest_first = self.choose.random() < 0.5
        self.fake.session_status = self.choose.choice([None, None, "paid"])

    def is_paid(self, session_id: str) -> bool:
        return any(each["attributes"]["status"] != "failed" for each in self.fake.payments_of(session_id))

    def paid_ids(self) -> list[str]:
        return [each["id"] for each in self.fake.payments.values() if each["attributes"]["status"] != "failed"]

    def settle(self) -> None:
        """PayMongo behaves, everything that was late has arrived, and every event is delivered."""
        self.fake.behave()
        self.fake.apply_late()
        self.fake.left_out, self.fake.session_status = set(), None
        sessions = [each for each in self.fake.sessions if self.is_paid(each)]
        money = [self.fake.session_paid(each) for each in sessions]
        money += [self.fake.payment_event("paid", each) for each in self.paid_ids()]
        refunds = [self.fake.refund_event("payment.refund.updated", each) for each in self.fake.refunds]
        for events in (money, refunds):  # of a refund that is told of before its payment is known, nothing is recorded
            self.choose.shuffle(events)
            for event in events:
                self.shop.tell(event)
        self.rows.execute("UPDATE refunds SET leased_until = created_at")
        resume_refunds(self.shop.app)

    def compare(self) -> None:
        """What is in our books is in PayMongo's, and the other way round."""
        for payment_id in self.payment_ids:
            state, trail = state_of(self.rows, payment_id), trail_of(self.rows, payment_id)
            paid = {each for each in self.paid_ids() if self.asked_by(each) == str(payment_id)}
            if not paid:
                assert (state["received_minor"], state["transaction_id"]) == (0, None)
                continue
            assert state["received_minor"] == 500_000
            assert state["transaction_id"] in paid
            assert ("payment.paid_again" in trail) == (len(paid) > 1)
            self.compare_refunds(payment_id, state["transaction_id"])

    def compare_refunds(self, payment_id: int, transaction_id: str) -> None:
        ours = self.rows.all("SELECT * FROM refunds WHERE payment_id = :id", id=payment_id)
        theirs = {each["id"]: each["attributes"]["status"] for each in self.fake.refunds_of(transaction_id)}
        assert {row["reference"]: row["status"] for row in ours if row["reference"]} == theirs
        # Nothing that PayMongo does not have has succeeded, and nothing was sent twice.
        assert all(row["reference"] for row in ours if row["status"] == "succeeded")
        sent = Counter((each["attributes"]["metadata"] or {}).get("refund_id") for each in self.fake.refunds.values())
        assert all(count == 1 for refund_id, count in sent.items() if refund_id is not None)

    def asked_by(self, transaction_id: str) -> str:
        return str(self.fake.payments[transaction_id]["attributes"]["metadata"]["payment_id"])


@pytest.fixture
def walk(module_shop: tuple[FakePayMongo, Flask], people: People, rows: Rows) -> Iterator[Callable[[int], Walk]]:
    fake, app = module_shop
    yield lambda seed: Walk(PayMongoApp(fake, app, people.seen_by(app)), rows, seed)
    fake.reset()


@pytest.mark.parametrize("seed", SEEDS)
@on_postgresql
def test_both_sides_agree_in_the_end(walk: Callable[[int], Walk], effort: int, seed: int) -> None:
    walked = walk(seed)
    walked.do_create()
    for _ in range(STEPS * effort):
        walked.step()

    walked.settle()

    walked.compare()
