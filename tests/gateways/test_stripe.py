"""Stripe's adapter: what each of Stripe's answers, and its silence, says of whether anything happened.

Real HTTP by the official SDK, to the fake Stripe, or to a server that has one answer for everything.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
import requests

from payments_app.gateways.base import (
    Approved,
    Charge,
    CheckoutSession,
    Declined,
    GatewayRefundRequest,
    OutcomeUnknown,
    SessionStatus,
    verify,
)
from payments_app.gateways.stripe.client import StripeGateway
from payments_app.gateways.stripe.objects import refund_of, session_of
from tests.support.admissions import admission_to, patient_with_silence
from tests.support.databases import Database
from tests.support.fake_gateway import Mode
from tests.support.fake_stripe import FakeStripe
from tests.support.fake_stripe_http import FakeResponse, Received, Server
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import free_port
from tests.support.session_requests import session_request
from tests.support.stripe_apps import fake_stripe, open_by_card, stripe_app_on
from tests.support.waiting import PATIENCE_SECONDS

BILL = Charge(payment_id=7, consultation_id=5, amount_minor=500_000, currency="PHP", payment_method="stripe")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeStripe]:
    with fake_stripe() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeStripe) -> Iterator[FakeStripe]:
    yield server
    server.reset()


def gateway_at(url: str, *, api_key: str = FakeStripe.api_key, lease_seconds: int = 4) -> StripeGateway:
    """One that makes a single attempt; a longer lease allows up to three."""
    return StripeGateway(
        api_key, api_base=url, timeout_seconds=3, lease_seconds=lease_seconds, admission=admission_to("stripe")
    )


@pytest.fixture
def gateway(fake: FakeStripe) -> StripeGateway:
    return gateway_at(fake.url)


def opened(gateway: StripeGateway) -> str:
    session = gateway.open_session(session_request(BILL))
    assert isinstance(session, CheckoutSession)
    return session.reference


def order_of(transaction_id: str, *, amount_minor: int = 200_000, reference: str | None = None) -> GatewayRefundRequest:
    return GatewayRefundRequest(
        refund_id=31,
        payment_id=BILL.payment_id,
        transaction_id=transaction_id,
        amount_minor=amount_minor,
        currency="PHP",
        reference=reference,
    )


@pytest.fixture
def order(fake: FakeStripe, gateway: StripeGateway) -> GatewayRefundRequest:
    """A refund of a payment that has been paid."""
    reference = opened(gateway)
    fake.pay(reference)
    return order_of(reference)


def sent(fake: FakeStripe, path: str, method: str = "POST") -> list[Received]:
    return [seen for seen in fake.received if seen.method == method and seen.path.startswith(path)]


# What is sent


def test_a_checkout_is_sent_under_the_payments_own_id(fake: FakeStripe, gateway: StripeGateway) -> None:
    opened(gateway)

    (request,) = sent(fake, "/v1/payment_intents")
    assert request.idempotency_key == "checkout-7-1"
    assert request.params == {
        "amount": "500000",
        "currency": "php",
        "metadata": {"payment_id": "7", "consultation_id": "5"},
    }


def test_a_refund_is_sent_under_its_own_id(
    fake: FakeStripe, gateway: StripeGateway, order: GatewayRefundRequest
) -> None:
    gateway.refund(order)

    (request,) = sent(fake, "/v1/refunds")
    assert request.idempotency_key == "refund-31"
    assert request.params == {
        "payment_intent": order.transaction_id,
        "amount": "200000",
        "metadata": {"refund_id": "31", "payment_id": "7"},
    }


def test_a_cancel_is_sent_under_the_payments_id_and_a_new_key_each_time(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    """Stripe would repeat a kept 500 for a day, and to cancel twice does no harm."""
    reference = opened(gateway)
    for _ in range(2):
        gateway.cancel_session(BILL, reference)

    keys = [request.idempotency_key for request in sent(fake, f"/v1/payment_intents/{reference}/cancel")]
    assert len(set(keys)) == 2
    assert all(key is not None and key.startswith("cancel-7-") for key in keys)


@pytest.mark.parametrize(
    "reference",
    ["TXN-1", "pi_", "pi_1/cancel", "pi_1?expand[]=customer", "pi_../refunds", "pi_1\n", "pi_é", " pi_1", "ch_1", ""],
)
def test_what_is_no_payment_of_stripes_never_leaves_the_house(
    fake: FakeStripe, gateway: StripeGateway, reference: str
) -> None:
    assert isinstance(gateway.look_up(BILL, reference), Declined)
    assert fake.received == []


# Whether anything happened


def error(status: int, kind: str, **more: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"type": kind, "message": "So says Stripe.", **more}}).encode()


REFUSALS = [
    error(400, "invalid_request_error"),
    error(402, "card_error", code="card_declined"),
    error(404, "invalid_request_error", code="resource_missing"),
]
NO_ANSWERS = [
    error(400, "idempotency_error"),
    error(400, "invalid_request_error", code="rate_limit"),
    error(401, "invalid_request_error"),
    error(403, "invalid_request_error"),
    error(409, "invalid_request_error", code="idempotency_key_in_use"),
    error(429, "invalid_request_error", code="rate_limit"),
    error(500, "api_error"),
    (502, b"<html>Bad gateway</html>"),
    error(503, "api_error"),
    (200, b"<html>Please log in to this network</html>"),
]


@contextmanager
def always(status: int, body: bytes) -> Iterator[StripeGateway]:
    """A server with one answer for everything."""

    def answer(_request: Received, _authorization: str | None, _client: socket.socket) -> FakeResponse:
        return FakeResponse(status, body)

    server = Server(answer)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield gateway_at(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


def name_of(answer: tuple[int, bytes]) -> str:
    return f"{answer[0]}"


@pytest.mark.parametrize("answer", REFUSALS, ids=name_of)
def test_a_refusal_means_that_nothing_happened(answer: tuple[int, bytes]) -> None:
    with always(*answer) as gateway:
        refused = Declined("So says Stripe.")
        assert gateway.open_session(session_request(BILL)) == refused
        assert gateway.look_up(BILL, "pi_1") == refused
        assert gateway.cancel_session(BILL, "pi_1") == refused
        assert gateway.refund(order_of("pi_1")) == refused
        # But a refund that cannot be looked up may have been made.
        assert isinstance(gateway.look_up_refund(order_of("pi_1")), OutcomeUnknown)
        assert isinstance(gateway.look_up_refund(order_of("pi_1", reference="re_1")), OutcomeUnknown)


def assert_all_unknown(gateway: StripeGateway) -> None:
    for outcome in (
        gateway.open_session(session_request(BILL)),
        gateway.look_up(BILL, "pi_1"),
        gateway.look_up_session(BILL, "pi_1"),
        gateway.cancel_session(BILL, "pi_1"),
        gateway.refund(order_of("pi_1")),
        gateway.look_up_refund(order_of("pi_1")),
        gateway.look_up_refund(order_of("pi_1", reference="re_1")),
    ):
        assert isinstance(outcome, OutcomeUnknown)
        assert "sk_test" not in outcome.reason


@pytest.mark.parametrize("answer", NO_ANSWERS, ids=name_of)
def test_every_other_answer_says_nothing_of_what_happened(answer: tuple[int, bytes]) -> None:
    with always(*answer) as gateway:
        assert_all_unknown(gateway)


LIVE_OBJECT = {
    "id": "pi_1",
    "livemode": True,
    "status": "succeeded",
    "amount": BILL.amount_minor,
    "currency": "php",
    "metadata": {"payment_id": str(BILL.payment_id), "consultation_id": str(BILL.consultation_id), "refund_id": "31"},
    "payment_intent": "pi_1",
    "object": "list",
    "has_more": False,
    "data": [{"id": "re_1", "livemode": True, "status": "succeeded", "amount": 1, "currency": "php"}],
}


def test_an_object_of_the_other_mode_pays_nothing_and_says_nothing_of_what_happened() -> None:
    """It is an intent, a refund and a list of refunds in one: all that the calls read."""
    with always(200, json.dumps(LIVE_OBJECT).encode()) as gateway:
        named = gateway.look_up(BILL, "pi_1")
        assert isinstance(named, Declined)
        for outcome in (
            gateway.open_session(session_request(BILL)),
            gateway.look_up_session(BILL, "pi_1"),
            gateway.cancel_session(BILL, "pi_1"),
            gateway.refund(order_of("pi_1")),
            gateway.look_up_refund(order_of("pi_1")),
            gateway.look_up_refund(order_of("pi_1", reference="re_1")),
        ):
            assert outcome == OutcomeUnknown("an object whose mode (test or live) is not that of our key")


@pytest.mark.parametrize("api_key", ["sk_live_1", "rk_live_1", "sk_org_1", "another"])
def test_an_object_of_our_keys_mode_is_believed_and_without_a_known_mode_every_one(
    fake: FakeStripe, monkeypatch: pytest.MonkeyPatch, api_key: str
) -> None:
    monkeypatch.setattr(fake, "api_key", api_key)
    gateway = gateway_at(fake.url, api_key=api_key)
    made = requests.post(
        f"{fake.url}/v1/payment_intents",
        data={"amount": BILL.amount_minor, "currency": "php"},
        headers={"Authorization": f"Bearer {api_key}"},
        timeout=PATIENCE_SECONDS,
    ).json()
    fake.tamper(made["id"], livemode=True)

    assert isinstance(gateway.look_up(BILL, made["id"]), CheckoutSession)


def test_nobody_there_says_nothing_of_what_happened() -> None:
    assert_all_unknown(patient_with_silence(gateway_at(f"http://127.0.0.1:{free_port()}")))


@pytest.mark.parametrize("mode", ["drop", "error", "error_before", "hang"])
def test_a_lost_answer_says_nothing_of_what_happened(
    fake: FakeStripe, gateway: StripeGateway, order: GatewayRefundRequest, mode: Mode
) -> None:
    fake.misbehave(mode)

    assert isinstance(gateway.refund(order), OutcomeUnknown)

    # Asking again under the same key tells, and makes no second one.
    fake.release()
    applied = fake.refunds_of(order.transaction_id)
    again = gateway.refund(order)
    assert isinstance(again, Approved)
    assert [made["id"] for made in fake.refunds_of(order.transaction_id)] == [again.reference]
    assert len(applied) == (0 if mode == "error_before" else 1)


def test_a_key_that_stripe_does_not_know_says_nothing_of_what_happened(
    fake: FakeStripe, order: GatewayRefundRequest
) -> None:
    gateway = gateway_at(fake.url, api_key="sk_test_rotated")

    for outcome in (gateway.refund(order), gateway.look_up_refund(order), gateway.look_up(BILL, order.transaction_id)):
        assert isinstance(outcome, OutcomeUnknown)
        assert "sk_test" not in outcome.reason


def test_a_refund_that_stripe_refuses_stays_refused(
    fake: FakeStripe, gateway: StripeGateway, order: GatewayRefundRequest
) -> None:
    fake.misbehave("refuse")

    first = gateway.refund(order)

    assert isinstance(first, Declined)
    assert "already been refunded" in first.reason
    assert gateway.refund(order) == first
    assert fake.refunds == {}


# Asking again


def test_a_lost_answer_is_asked_for_again_under_the_same_key(fake: FakeStripe, order: GatewayRefundRequest) -> None:
    patient = gateway_at(fake.url, lease_seconds=60)
    fake.misbehave("drop")
    fake.misbehave("error")

    assert isinstance(patient.refund(order), Approved)

    assert [request.idempotency_key for request in sent(fake, "/v1/refunds")] == ["refund-31"] * 3
    assert fake.refunded_total(order.transaction_id) == 200_000


@pytest.mark.parametrize(("lease_seconds", "attempts"), [(6, 1), (7, 2), (60, 3)])
def test_there_are_no_more_attempts_than_end_within_the_lease(
    fake: FakeStripe, order: GatewayRefundRequest, lease_seconds: int, attempts: int
) -> None:
    """Or resume would overtake a worker that is still at it. One attempt takes up to three seconds."""
    fake.misbehave("error_before", times=None)

    assert isinstance(gateway_at(fake.url, lease_seconds=lease_seconds).refund(order), OutcomeUnknown)

    assert len(sent(fake, "/v1/refunds")) == attempts


@pytest.mark.parametrize(("mode", "asked"), [("error_before", ["POST"]), ("refuse", ["POST", "GET"])])
def test_a_cancel_asks_once_and_looks_once_into_a_refusal(fake: FakeStripe, mode: Mode, asked: list[str]) -> None:
    """It may follow another call within one request, and all of that has to end before nginx does."""
    patient = gateway_at(fake.url, lease_seconds=60)
    reference = opened(patient)
    fake.cancel(reference)
    fake.misbehave(mode, path="/v1/payment_intents", times=None)
    fake.misbehave("error_before", method="GET", path="/v1/payment_intents", times=None)
    opening = len(fake.received)

    assert isinstance(patient.cancel_session(BILL, reference), OutcomeUnknown)

    assert [request.method for request in fake.received[opening:]] == asked


# Finding refunds


def test_a_refund_is_found_among_more_than_a_page_of_others(
    fake: FakeStripe, gateway: StripeGateway, order: GatewayRefundRequest
) -> None:
    made = gateway.refund(order)
    for _ in range(120):  # younger ones are listed first
        fake.refund_in_dashboard(order.transaction_id, 1)

    assert gateway.look_up_refund(order) == made

    pages = sent(fake, "/v1/refunds", "GET")
    assert len(pages) == 2
    assert {page.params["limit"] for page in pages} == {"100"}
    assert {page.params["payment_intent"] for page in pages} == {order.transaction_id}


def test_a_refund_that_is_on_no_page_is_known_not_to_be_there(
    fake: FakeStripe, gateway: StripeGateway, order: GatewayRefundRequest
) -> None:
    for _ in range(120):
        fake.refund_in_dashboard(order.transaction_id, 1)

    assert gateway.look_up_refund(order) is None


def test_a_list_that_breaks_off_is_no_proof_that_it_was_not_there(
    fake: FakeStripe, gateway: StripeGateway, order: GatewayRefundRequest
) -> None:
    gateway.refund(order)
    for _ in range(120):
        fake.refund_in_dashboard(order.transaction_id, 1)

    # The first page is answered, the second is not.
    def first_page_only(request: Received, authorization: str | None, client: socket.socket) -> FakeResponse | None:
        return None if "starting_after" in request.params else fake.answer(request, authorization, client)

    server = Server(first_page_only)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        found = gateway_at(f"http://127.0.0.1:{server.server_port}").look_up_refund(order)
    finally:
        server.shutdown()
        server.server_close()

    assert isinstance(found, OutcomeUnknown)


@pytest.mark.parametrize(
    "metadata", [{}, {"refund_id": "310"}, {"refund_id": "031"}, {"refund_id": "3\uff11"}, {"x": "31"}]
)
def test_a_refund_with_other_metadata_is_not_ours(
    fake: FakeStripe, gateway: StripeGateway, order: GatewayRefundRequest, metadata: dict[str, str]
) -> None:
    other = fake.refund_in_dashboard(order.transaction_id, order.amount_minor)
    fake.refunds[other["id"]]["metadata"] = metadata

    assert gateway.look_up_refund(order) is None


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("pending", Approved("re_1", settled=False)),
        ("requires_action", Approved("re_1", settled=False)),
        ("succeeded", Approved("re_1")),
        ("failed", Declined("The gateway says: lost or stolen card.", "re_1")),
        ("canceled", Declined("The gateway says: canceled.", "re_1")),
    ],
)
def test_what_a_refunds_status_means(status: str, outcome: Approved | Declined) -> None:
    refund: dict[str, Any] = {
        "id": "re_1",
        "status": status,
        "failure_reason": "lost_or_stolen_card" if status == "failed" else None,
        "payment_intent": "pi_1",
        "amount": 1,
        "currency": "php",
        "metadata": {},
    }

    assert refund_of(refund).outcome == outcome


# What a payment has to say


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        ("requires_payment_method", SessionStatus.OPEN),
        ("requires_confirmation", SessionStatus.OPEN),
        ("requires_action", SessionStatus.OPEN),
        ("requires_capture", SessionStatus.OPEN),
        ("a_status_that_stripe_adds_next_year", SessionStatus.OPEN),
        ("processing", SessionStatus.PROCESSING),
        ("succeeded", SessionStatus.SUCCEEDED),
        ("canceled", SessionStatus.CANCELLED),
    ],
)
def test_only_succeeded_is_paid(fake: FakeStripe, gateway: StripeGateway, status: str, meaning: SessionStatus) -> None:
    intent = fake.intents[opened(gateway)]

    session = session_of({**intent, "status": status, "amount_received": 500_000})

    assert session.status == meaning
    assert isinstance(verify(BILL, session), Approved) == (status == "succeeded")


TAMPERED: list[dict[str, Any]] = [
    {"metadata": {}},
    {"metadata": {"payment_id": "8", "consultation_id": "5"}},
    {"metadata": {"payment_id": "7", "consultation_id": "6"}},
    {"metadata": {"payment_id": "07", "consultation_id": "5"}},
    {"metadata": {"payment_id": "\uff17", "consultation_id": "5"}},
    {"metadata": {"payment_id": "7" * 30, "consultation_id": "5"}},
    {"currency": "usd"},
    {"amount_received": 499_999},
    {"amount_received": 500_001},
    {"amount_received": 0},
]


@pytest.mark.parametrize("fields", TAMPERED, ids=str)
def test_money_for_something_else_is_declined(
    fake: FakeStripe, gateway: StripeGateway, order: GatewayRefundRequest, fields: dict[str, Any]
) -> None:
    fake.tamper(order.transaction_id, **fields)

    found = gateway.look_up(BILL, order.transaction_id)

    assert isinstance(found, CheckoutSession)
    verdict = verify(BILL, found)
    assert isinstance(verdict, Declined)
    assert verdict.reason


@pytest.mark.parametrize(
    "fields", [{"metadata": {}}, {"currency": "usd"}, {"amount_received": 499_999}, {"status": "processing"}], ids=str
)
def test_a_confirm_by_money_for_something_else_is_402_and_writes_nothing(
    database: Database, people: People, rows: Rows, fields: dict[str, Any]
) -> None:
    with stripe_app_on(database.url, people) as (fake, _, seen):
        payment_id, reference = open_by_card(seen, 5)
        fake.pay(reference)
        fake.tamper(reference, **fields)

        answer = seen.patient.confirm(payment_id, reference, key="k")

    assert answer.status_code == 402
    assert answer.json["type"].endswith("/payment-not-verified")
    assert rows.one("SELECT status, version, received_minor, transaction_id FROM payments") == {
        "status": "pending",
        "version": 0,
        "received_minor": 0,
        "transaction_id": None,
    }
    assert rows.count("idempotency_keys", "key = 'k'") == 0


def test_somebody_elses_money_pays_no_bill_of_mine(database: Database, people: People, rows: Rows) -> None:
    with stripe_app_on(database.url, people) as (fake, _, seen):
        _, paid_reference = open_by_card(seen, 5)
        mine, _ = open_by_card(seen, 6)
        fake.pay(paid_reference)

        assert seen.patient.confirm(mine, paid_reference).status_code == 402

    assert rows.count("payments", "status = 'completed'") == 0
