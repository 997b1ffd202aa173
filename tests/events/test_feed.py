"""The feed as a booking system reads it."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine

from payments_app import clock
from payments_app.db import deadline
from payments_app.payments.models.event import EVENT_TYPES
from tests.api.assertions import assert_problem
from tests.support.apps import app_with
from tests.support.client import client_of
from tests.support.databases import Database
from tests.support.feeds import read_all, read_page
from tests.support.people import People
from tests.support.raw_rows import MOMENT, Raw
from tests.support.rows import Rows
from tests.support.waiting import wait_until


def pay(people: People, consultation_id: int, *, by_hand: bool = True) -> int:
    answer = people.patient.pay(consultation_id, payment_method="gcash" if by_hand else "stripe")
    payment_id: int = answer.json["data"]["payment_id"]
    return payment_id


def confirm(people: People, payment_id: int) -> None:
    assert people.admin.confirm(payment_id, f"TXN-{payment_id}").status_code == 200


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_each_committed_event_is_in_the_feed_once(people: People) -> None:
    payment_id = pay(people, 5)
    confirm(people, payment_id)
    refund = people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000, "reason": "asked for"})
    refund_id = refund.json["data"]["refund"]["id"]
    assert people.admin.post(f"/refunds/{refund_id}/settle", {"reference": "GC-1"}).status_code == 200
    other = pay(people, 6)

    feed = read_all(people.admin, limit=2)

    assert [event["position"] for event in feed] == list(range(1, len(feed) + 1))
    of_payment = ["payment.created", "payment.completed", "refund.requested", "refund.succeeded"]
    assert types(feed) == [*of_payment, "payment.created"]
    assert set(types(feed)) <= set(EVENT_TYPES)
    assert [event["data"]["payment_id"] for event in feed] == [payment_id] * 4 + [other]
    first, requested = feed[0], feed[2]
    assert list(first) == ["id", "type", "position", "created_at", "data"]
    assert first["data"] == {
        "payment_id": payment_id,
        "consultation_id": 5,
        "consultation_reference": None,
        "status": "pending",
        "version": 0,
        "amount": 5000,
        "currency": "PHP",
        "actor": f"patient:{people.patient.id}",
    }
    assert requested["data"]["refund_id"] == refund_id
    assert requested["data"]["refund_amount"] == 1000
    assert feed[3]["data"]["status"] == "partially_refunded"


def test_it_reads_the_same_whenever_it_is_read(people: People) -> None:
    payment_id = pay(people, 5)
    before = read_all(people.admin)
    people.booking.put("/consultations/5", {"patient_email": people.patient.email, "reference": "BK-5"})
    confirm(people, payment_id)
    after = read_all(people.admin)

    assert after[: len(before)] == before
    assert [event["data"]["consultation_reference"] for event in after] == [None, "BK-5"]


def test_the_cursor_goes_on_from_the_end(people: People) -> None:
    nothing, beginning, has_more = read_page(people.admin)
    assert (nothing, has_more) == ([], False)
    pay(people, 5)
    first, end, _ = read_page(people.admin, beginning)
    nothing, same_end, _ = read_page(people.admin, end)
    pay(people, 6)
    second, _, _ = read_page(people.admin, same_end)

    assert (types(first), nothing, types(second)) == (["payment.created"], [], ["payment.created"])
    assert second[0]["position"] == first[0]["position"] + 1


def test_types_are_chosen_and_the_cursor_moves_past_the_others(people: People) -> None:
    for consultation_id in range(1, 13):
        confirm(people, pay(people, consultation_id))
    completed = read_all(people.admin, types="payment.completed", limit=5)
    several = read_all(people.admin, types="payment.completed,payment.created")
    looked_at, cursor, has_more = read_page(people.admin, types="refund.requested", limit=1)

    assert types(completed) == ["payment.completed"] * 12
    assert len(several) == 24
    assert (looked_at, has_more) == ([], True)  # no more than ten events are looked at for one
    assert len(read_all(people.admin, cursor)) == 24 - 10


def test_a_booking_system_reads_what_it_registered(people: People) -> None:
    people.booking.put("/consultations/500", {"patient_email": people.patient.email, "reference": "BK-77"})
    pay(people, 5)
    own = pay(people, 500)
    pay(people, 6)

    (event,) = read_all(people.booking, limit=1)
    assert (event["data"]["payment_id"], event["data"]["consultation_reference"]) == (own, "BK-77")
    assert len(read_all(people.admin)) == 3
    _, cursor, _ = read_page(people.booking)
    assert read_all(people.admin, cursor) == []  # it has moved past what it does not show


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE payment_events SET created_at = :moment WHERE position = 2",
        "UPDATE payment_events SET position = position + 1000",
    ],
)
def test_after_a_restore_the_cursor_is_lost(people: People, rows: Rows, damage: str) -> None:
    pay(people, 5)
    _, first, _ = read_page(people.admin)
    pay(people, 6)
    _, second, _ = read_page(people.admin)
    rows.execute(damage, **({"moment": str(MOMENT)} if ":moment" in damage else {}))

    assert_problem(people.admin.get("/events", query_string={"after": second}), 410, code="cursor-lost")
    if "1000" not in damage:
        read_page(people.admin, first)  # the place before it is as it was
    assert len(read_all(people.admin)) == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("wait=26", "wait"),
        ("wait=-1", "wait"),
        ("wait=01", "wait"),
        ("types=", "types"),
        ("types=payment.created,", "types"),
        ("types=payment.paid", "types"),
        ("types=payment.created%00", "types"),
        ("types=payment.created&types=payment.failed", "types"),
        ("after=", "after"),
        ("after=x", "after"),
        ("after=WzFd.x", "after"),
        ("after=" + "a" * 600, "after"),
        ("cursor=x", "cursor"),
    ],
)
def test_what_cannot_be_asked_is_422(people: People, query: str, field: str) -> None:
    assert_problem(people.admin.get(f"/events?{query}"), 422, field, code="validation-failed")


@pytest.mark.parametrize(
    "names",
    ["", "payment.created,", "payment.paid", "payment_created", "payment.created", ",".join(sorted(EVENT_TYPES))],
)
def test_the_document_says_which_types_can_be_asked_for(app: Flask, people: People, names: str) -> None:
    parameters = client_of(app).get("/openapi.json").json["paths"]["/api/v1/events"]["get"]["parameters"]
    (pattern,) = (each["schema"]["pattern"] for each in parameters if each.get("name") == "types")
    response = people.admin.get(f"/events?types={names}")
    assert response.status_code == (200 if re.search(pattern, names) else 422)


def test_a_cursor_of_another_list_is_422(people: People) -> None:
    for consultation_id in (5, 6):
        pay(people, consultation_id)
    other = people.admin.get("/payments?per_page=1").json["meta"]["next_cursor"]

    assert_problem(people.admin.get("/events", query_string={"after": other}), 422, "after")


def test_a_reader_waits_for_news_and_holds_no_transaction(people: People, engine: Engine, rows: Rows) -> None:
    _, end, _ = read_page(people.admin)
    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read_page, people.admin, end, wait=20) for _ in range(2)]
        waits = people.app.extensions["feed waits"]
        wait_until(lambda: waits._value == 0)
        if engine.dialect.name == "postgresql":
            open_ = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
            assert rows.all(open_)[0]["count"] == 0
        third = pool.submit(read_page, people.admin, end, wait=20)
        assert third.result()[0] == []  # two wait already
        pay(people, 5)
        pages = [reader.result() for reader in readers]

    assert [types(events) for events, _, _ in pages] == [["payment.created"]] * 2
    assert waits._value == 2


def test_a_worker_that_stops_waits_no_longer(people: People) -> None:
    _, end, _ = read_page(people.admin)
    stopping = threading.Event()
    deadline.set_stop_check(stopping.is_set)
    try:
        with ThreadPoolExecutor(1) as pool:
            reader = pool.submit(read_page, people.admin, end, wait=25)
            wait_until(lambda: people.app.extensions["feed waits"]._value < 2)
            began = time.monotonic()
            stopping.set()
            assert reader.result()[0] == []
        assert time.monotonic() - began < 20  # it looks once a second; without a stop it waits for 25
    finally:
        deadline.set_stop_check(lambda: False)


def test_what_a_filter_leaves_out_does_not_end_the_wait(people: People) -> None:
    _, end, _ = read_page(people.admin)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read_page, people.admin, end, types="payment.completed", wait=20)
        payment_id = pay(people, 5)
        confirm(people, payment_id)
        events, _, _ = reader.result()

    assert types(events) == ["payment.completed"]


def test_payments_of_a_proof_are_no_events(people: People, rows: Rows) -> None:
    rows.execute("UPDATE users SET email = 'prove-x-1@proof.invalid' WHERE id = :id", id=people.other.id)
    assert people.other.pay(21).status_code == 201
    pay(people, 5)

    (event,) = read_all(people.admin)
    assert event["data"]["consultation_id"] == 5


def test_an_old_event_of_a_refund_has_no_id_of_it(people: People, engine: Engine) -> None:
    raw = Raw(engine)
    payment_id = raw.payment(people.patient.id, 5, "completed")
    raw.event(payment_id, event="refund.requested", to_status="completed")

    (event,) = read_all(people.admin)
    assert not event["data"].keys() & {"refund_id", "refund_amount", "dispute_id"}


def test_a_cursor_is_signed_with_the_services_secret(database: Database, people: People) -> None:
    _, cursor, _ = read_page(people.admin)
    with app_with(database.url, SECRET_KEY="another secret of thirty-two bytes or more") as other:
        token = people.token_from(other, people.admin)
        answer = people.seen_by(other).admin.send(
            "GET", f"/events?after={cursor}", headers={"Authorization": f"Bearer {token}"}
        )

    assert_problem(answer, 422, "after")


def test_a_clock_that_is_behind_swaps_nothing(people: People, app: Flask, engine: Engine) -> None:  # noqa: ARG001
    """Of one payment, whatever the servers' clocks said."""
    raw = Raw(engine)
    payment_id = raw.payment(people.patient.id, 5, "completed", version=2)
    now = clock.now()
    for version, minutes in ((0, 5), (1, 1), (2, 3)):
        raw.event(payment_id, event="payment.reviewed", version=version, created_at=now + timedelta(minutes=minutes))
    raw.event(raw.payment(people.patient.id, 6), created_at=now + timedelta(minutes=4))

    feed = read_all(people.admin)
    data = [event["data"] for event in feed]
    assert [(each["consultation_id"], each["version"]) for each in data] == [(6, 0), (5, 0), (5, 1), (5, 2)]
