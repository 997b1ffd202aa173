"""Credit notes: one for each refund of a paid invoice, numbered without gaps, whatever races, fails or dies."""

from functools import partial
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.db.errors import RetryTransaction
from payments_app.gateways.base import Declined
from payments_app.gateways.offline import OfflineGateway
from payments_app.idempotency import repository as idempotency
from payments_app.payments.models.event import AuditContext
from payments_app.refunds import repository
from tests.gateway_webhooks import tell
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.kill_points import Doomed, points
from tests.support.operations import refund as order
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import at_once
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card, refund, resume_refunds

pytestmark = pytest.mark.usefixtures("audited")


def notes(rows: Rows) -> list[tuple[Any, ...]]:
    """Number, status, amount and tax of each credit note, in minor units, by number."""
    found = rows.all("SELECT series, number, status, amount_minor, tax_minor FROM credit_notes ORDER BY series, number")
    return [tuple(row.values()) for row in found]


def paid(people: People, consultation: int = 5, amount: float | str = 5000) -> int:
    payment_id: int = people.patient.pay(consultation, amount=amount).json["data"]["payment_id"]
    assert people.patient.confirm(payment_id, f"TXN-{consultation}").status_code == 200
    return payment_id


def test_each_refund_has_a_note_and_the_last_one_takes_the_rest_of_the_tax(people: People, rows: Rows) -> None:
    payment_id = paid(people, amount="1000.05")  # 120.01 of it is tax

    ids = [
        refund(people.admin, payment_id, f"part-{number}", amount=part).json["data"]["refund"]
        for number, part in enumerate((333.35, 333.35, None))
    ]

    assert notes(rows) == [
        ("CN", 1, "issued", 33_335, 4_000),
        ("CN", 2, "issued", 33_335, 4_001),
        ("CN", 3, "issued", 33_335, 4_000),
    ]
    assert len({each["credit_note_id"] for each in ids}) == 3
    shown = people.patient.get(f"/payments/{payment_id}").json["data"]["refunds"]
    assert [each["credit_note_id"] for each in shown] == [each["credit_note_id"] for each in ids]


def test_a_note_whose_refund_fails_later_keeps_its_number_and_its_tax_is_free_again(
    app: Flask, people: People, rows: Rows
) -> None:
    payment_id = paid(people)
    first = refund(people.admin, payment_id, amount=2000).json["data"]["refund"]
    with app.app_context():
        context = AuditContext("gateway:sandbox", None, clock.now())
        for _ in range(2):  # told twice
            repository.settle_resumed(first["id"], Declined("The card was closed."), context=context)

    assert refund(people.admin, payment_id).status_code == 200

    assert notes(rows) == [("CN", 1, "void", 200_000, 24_000), ("CN", 2, "issued", 500_000, 60_000)]
    shown = people.admin.get(f"/payments/{payment_id}").json["data"]["refunds"]
    assert [each["status"] for each in shown] == ["failed", "succeeded"]
    assert shown[0]["credit_note_id"] == first["credit_note_id"]


def test_money_in_quarantine_goes_back_without_a_note(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    stripe_app.fake.tamper(reference, amount=400_000, amount_received=400_000)
    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))
    assert rows.one("SELECT needs_review, received_minor FROM payments") == {
        "needs_review": True,
        "received_minor": 400_000,
    }

    returned = refund(stripe_app.people.admin, payment_id)

    assert returned.status_code == 200, returned.json
    assert returned.json["data"]["refund"]["credit_note_id"] is None
    assert notes(rows) == []


def test_a_refund_made_elsewhere_has_its_note_once_it_is_named(stripe_app: StripeApp, rows: Rows) -> None:
    pay_by_card(stripe_app.people, stripe_app.fake, 5)
    (reference,) = stripe_app.fake.intents
    made = stripe_app.fake.refund_in_dashboard(reference, 1_000)

    tell(stripe_app, stripe_app.fake.charge_refunded(reference))
    assert notes(rows) == []  # a total, which may be of several refunds
    for _ in range(2):
        tell(stripe_app, stripe_app.fake.refund_event("created", made["id"]))

    assert notes(rows) == [("CN", 1, "issued", 1_000, 120)]


def test_a_refund_known_before_its_money_has_its_note_with_the_money(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)
    made = stripe_app.fake.refund_in_dashboard(reference, 1_000)
    event = stripe_app.fake.refund_event("created", made["id"])
    tell(stripe_app, event)
    assert (rows.count("refunds"), notes(rows)) == (1, [])

    assert stripe_app.people.patient.confirm(payment_id, reference).status_code == 200

    assert notes(rows) == [("CN", 1, "issued", 1_000, 120)]


def test_a_note_that_is_issued_while_another_refund_is_sent_counts_for_the_tax(
    app: Flask, people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment_id = paid(people, amount="1000.05")
    first = refund(people.admin, payment_id, "first", amount=333.35).json["data"]["refund"]
    rows.execute("UPDATE refunds SET credit_note_id = NULL")  # as the release before left it
    rows.execute("DELETE FROM credit_notes")
    rows.execute("DELETE FROM credit_note_counters")
    send = OfflineGateway.refund

    def issue_and_send(*arguments: Any) -> Any:
        with app.app_context():
            repository.issue_credit_note(first["id"], at=clock.now())
        return send(*arguments)

    monkeypatch.setattr(OfflineGateway, "refund", issue_and_send)

    assert refund(people.admin, payment_id, "second", amount=333.35).status_code == 200
    assert notes(rows) == [("CN", 1, "issued", 33_335, 4_000), ("CN", 2, "issued", 33_335, 4_001)]


def test_missing_notes_are_issued_once_oldest_refund_first(database: Database, people: People, rows: Rows) -> None:
    payment_ids = [paid(people, consultation) for consultation in (5, 6)]
    for payment_id in payment_ids:
        refund(people.admin, payment_id, amount=1000)
    rows.execute("UPDATE refunds SET credit_note_id = NULL")  # as the release before left them
    rows.execute("DELETE FROM credit_notes")
    rows.execute("DELETE FROM credit_note_counters")
    with commands_on(database.url) as commands:
        assert commands.ok("refunds", "credit") == "2 credit notes issued\n"
        assert commands.ok("refunds", "credit") == "0 credit notes issued\n"

    assert notes(rows) == [("CN", number, "issued", 100_000, 12_000) for number in (1, 2)]
    of_payments = rows.all("SELECT payment_id FROM credit_notes ORDER BY number")
    assert [row["payment_id"] for row in of_payments] == payment_ids


def test_notes_of_a_proof_take_no_number_from_the_clinics(people: People, rows: Rows) -> None:
    first, scratch, last = (paid(people, consultation) for consultation in (5, 6, 7))
    refund(people.admin, first, amount=10)
    address = rows.one("SELECT email FROM users WHERE id = :id", id=people.patient.id)["email"]
    rows.execute("UPDATE users SET email = 'prove-1-2@proof.invalid' WHERE id = :id", id=people.patient.id)
    refund(people.admin, scratch, amount=10)
    rows.execute("UPDATE users SET email = :email WHERE id = :id", email=address, id=people.patient.id)
    refund(people.admin, last, amount=10)

    assert [note[:2] for note in notes(rows)] == [("CN", 1), ("CN", 2), ("PROVE", 1)]


def test_an_attempt_that_is_rolled_back_after_it_took_a_number_gives_it_back(
    people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment_id = paid(people)
    store, numbers = idempotency.store_final, []

    def store_or_lose(session: Session, *arguments: Any) -> None:
        numbers.append(session.scalar(text("SELECT last_number FROM credit_note_counters")))
        if len(numbers) == 1:
            raise RetryTransaction
        store(session, *arguments)

    monkeypatch.setattr(idempotency, "store_final", store_or_lose)

    assert refund(people.admin, payment_id, amount=10).status_code == 200
    assert numbers == [1, 1]
    assert [number for _, number, *_ in notes(rows)] == [1]


def test_racing_refunds_of_many_payments_leave_no_gap_and_no_number_twice(
    app: Flask, people: People, rows: Rows
) -> None:
    payment_ids = [paid(people, consultation) for consultation in range(1, 9)]
    calls = [
        partial(order(people.admin, payment_id, part * 100, f"{payment_id}-{part}").do, app)
        for payment_id in payment_ids
        for part in (1, 2)
    ]

    results = at_once(calls)

    for call, result in zip(calls, results, strict=True):  # those that lost too many races ask again
        while result.ask_again:
            result = call()  # noqa: PLW2901  # until there is a last one
    assert [number for _, number, *_ in notes(rows)] == list(range(1, len(calls) + 1))
    assert rows.count("refunds", "credit_note_id IS NOT NULL") == len(calls)


def test_what_is_rolled_back_or_killed_gives_its_number_back(
    database: Database, app: Flask, people: People, rows: Rows
) -> None:
    """Killed at each statement about credit notes, at what comes after it, and at the commit."""
    payment_id = paid(people)
    with Doomed.ready(database.url) as doomed:
        steps = doomed.watch(order(people.admin, payment_id, 10, "undisturbed"))
        about_notes = [number for number, step in enumerate(steps) if "credit_note" in str(step)]
        assert about_notes
        chosen = [
            point
            for point in points(steps, of_sqlite=database.url.startswith("sqlite"))
            if about_notes[0] <= point.number <= len(steps)
        ]
        for point in chosen:
            again = order(people.admin, payment_id, 10, f"{point}")
            doomed.kill(again, point)
            rows.execute("UPDATE refunds SET leased_until = created_at")
            resume_refunds(app)
            assert again.do(app).word.startswith("200")

    total = len(chosen) + 1
    assert [number for _, number, *_ in notes(rows)] == list(range(1, total + 1))
    assert rows.count("refunds", "credit_note_id IS NOT NULL AND status = 'succeeded'") == total
