"""PayMongo's adapter: what each of PayMongo's answers, and its silence, says of whether anything happened.

Real HTTP to the fake PayMongo, or to a server that has one answer for everything. The real API was never tried.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest

from payments_app.gateways.base import (
    Approved,
    Charge,
    CheckoutSession,
    Declined,
    GatewayRefundRequest,
    OutcomeUnknown,
    Reachable,
    SessionRequest,
    SessionStatus,
    verify,
)
from payments_app.gateways.paymongo import transport
from payments_app.gateways.paymongo.client import PayMongoGateway
from payments_app.gateways.paymongo.objects import Reader
from payments_app.gateways.paymongo.transport import NoAnswer, Transport
from payments_app.gateways.untrusted import Unreadable
from tests.support.admissions import admission_to, patient_with_silence
from tests.support.fake_gateway import Mode
from tests.support.fake_paymongo import FakePayMongo
from tests.support.fake_stripe_http import FakeResponse, Received, Server
from tests.support.service import free_port

BILL = Charge(payment_id=7, consultation_id=5, amount_minor=500_000, currency="PHP", payment_method="gcash")
REQUEST = SessionRequest(
    charge=BILL,
    number=1,
    expires_at=None,
    language="en",
    description="Consultation 5",
    return_url="https://clinic.example/pay/return",
)


@pytest.fixture(scope="module")
def server() -> Iterator[FakePayMongo]:
    fake = FakePayMongo()
    yield fake
    fake.close()


@pytest.fixture
def fake(server: FakePayMongo) -> Iterator[FakePayMongo]:
    yield server
    server.reset()


def gateway_at(
    api_base: str, *, api_key: str = "sk_live_fake", timeout_seconds: int = 3, lease_seconds: int = 60
) -> PayMongoGateway:
    return PayMongoGateway(
        api_key,
        api_base=api_base,
        timeout_seconds=timeout_seconds,
        lease_seconds=lease_seconds,
        admission=admission_to("paymongo"),
    )


@pytest.fixture
def gateway(fake: FakePayMongo) -> PayMongoGateway:
    return gateway_at(fake.api_base)


def opened(gateway: PayMongoGateway, request: SessionRequest = REQUEST) -> str:
    session = gateway.open_session(request)
    assert isinstance(session, CheckoutSession), session
    return session.reference


def looked_up(gateway: PayMongoGateway, reference: str) -> CheckoutSession:
    found = gateway.look_up_session(BILL, reference)
    assert isinstance(found, CheckoutSession), found
    return found


def order_of(
    transaction_id: str, *, refund_id: int = 31, amount_minor: int = 200_000, reference: str | None = None
) -> GatewayRefundRequest:
    return GatewayRefundRequest(
        refund_id=refund_id,
        payment_id=BILL.payment_id,
        transaction_id=transaction_id,
        amount_minor=amount_minor,
        currency="PHP",
        reference=reference,
    )


@pytest.fixture
def order(fake: FakePayMongo, gateway: PayMongoGateway) -> GatewayRefundRequest:
    """A refund of a payment that has been paid."""
    return order_of(fake.pay(opened(gateway)))


def sent(fake: FakePayMongo, path: str, method: str = "POST") -> list[Received]:
    return [seen for seen in fake.received if seen.method == method and seen.path.startswith(path)]


# What is sent


def test_a_session_is_opened_from_its_row_alone(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    session = gateway.open_session(REQUEST)

    assert isinstance(session, CheckoutSession)
    assert session.redirect_url == f"{fake.url}/checkout/{session.reference}"
    assert (session.status, session.client_secret, session.instructions) == (SessionStatus.OPEN, None, None)
    assert session.money.transaction_id is None
    assert session.redirect_url not in repr(session)
    (request,) = sent(fake, "/v1/checkout_sessions")
    assert request.idempotency_key == "checkout-7-1"
    assert request.params == {
        "data": {
            "attributes": {
                "line_items": [{"amount": 500_000, "currency": "PHP", "name": "Consultation 5", "quantity": 1}],
                "payment_method_types": ["gcash"],
                "reference_number": "payment 7, consultation 5, checkout 1",
                "description": "Consultation 5",
                "metadata": {"payment_id": "7", "consultation_id": "5"},
                "send_email_receipt": False,
                "show_description": True,
                "show_line_items": True,
                "success_url": "https://clinic.example/pay/return",
                "cancel_url": "https://clinic.example/pay/return",
            }
        }
    }


@pytest.mark.parametrize(
    ("method", "types"),
    [
        ("gcash", ["gcash"]),
        ("e_wallet", ["paymaya", "grab_pay"]),
        ("stripe", ["card"]),
        ("bank_transfer", ["qrph"]),
    ],
)
def test_each_method_is_one_way_to_pay_there(
    fake: FakePayMongo, gateway: PayMongoGateway, method: str, types: list[str]
) -> None:
    reference = opened(gateway, replace(REQUEST, charge=replace(BILL, payment_method=method)))

    assert fake.sessions[reference]["attributes"]["payment_method_types"] == types


@pytest.mark.parametrize("other", [{"currency": "USD"}, {"payment_method": "cheque"}], ids=str)
def test_what_paymongo_does_not_carry_is_never_sent(
    fake: FakePayMongo, gateway: PayMongoGateway, other: dict[str, Any]
) -> None:
    assert isinstance(gateway.open_session(replace(REQUEST, charge=replace(BILL, **other))), Declined)
    assert fake.received == []


def test_a_refund_is_sent_with_its_id_in_metadata_and_notes(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest
) -> None:
    assert isinstance(gateway.refund(order), Approved)

    (request,) = sent(fake, "/v1/refunds")
    assert request.idempotency_key == "refund-31"
    assert request.params["data"]["attributes"] == {
        "amount": 200_000,
        "payment_id": order.transaction_id,
        "reason": "requested_by_customer",
        "notes": "Refund 31 of payment 7",
        "metadata": {"refund_id": "31", "payment_id": "7"},
    }


@pytest.mark.parametrize(
    "reference",
    ["TXN-1", "pay_", "pay_1/expire", "pay_1?limit=1", "pay_../refunds", "pay_1\n", "pay_\u00e9", " pay_1", "cs_1", ""],
)
def test_what_is_no_payment_of_paymongos_never_leaves_the_house(
    fake: FakePayMongo, gateway: PayMongoGateway, reference: str
) -> None:
    assert isinstance(gateway.look_up(BILL, reference), Declined)
    assert fake.received == []


def test_no_call_goes_by_a_proxy_or_with_a_password_that_the_environment_names(
    fake: FakePayMongo, gateway: PayMongoGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    assert opened(gateway) in fake.sessions


# Whether anything happened


def errors(status: int, code: str, detail: str = "So says PayMongo.") -> tuple[int, bytes]:
    return status, json.dumps({"errors": [{"code": code, "detail": detail}]}).encode()


REFUSALS = [
    errors(400, "parameter_invalid"),
    errors(402, "processor_declined"),
    errors(404, "resource_not_found"),
    errors(422, "parameter_invalid"),
]
NO_ANSWERS = [
    errors(400, "idempotency_key_in_use"),
    errors(401, "authentication_failed", "No such key: sk_live_fake."),
    errors(403, "forbidden"),
    errors(408, "timeout"),
    errors(409, "conflict"),
    errors(429, "rate_limited"),
    errors(500, "internal_server_error"),
    errors(503, "unavailable"),
    (302, b""),
    (400, b"<html>Bad request</html>"),
    (404, b"{}"),
    (404, b'{"errors": []}'),
    (502, b"<html>Bad gateway</html>"),
    (200, b"<html>Please log in to this network</html>"),
    (200, b""),
    (200, b"[]"),
    (200, b"{}"),
    (200, b'{"data": null}'),
    (200, b'{"data": {}}'),
    (200, b'{"data": {"id": "cs_1", "attributes": null}}'),
    (200, b'{"data": {"id": 7, "attributes": {"payments": "all"}}}'),
    (200, b'{"data":' * 50_000),
    (200, b'{"data": "' + b"x" * transport.MOST_BYTES + b'"}'),
]


@contextmanager
def always(status: int, body: bytes, **headers: str) -> Iterator[PayMongoGateway]:
    """A server with one answer for everything."""

    def answer(_request: Received, _authorization: str | None, _client: socket.socket) -> FakeResponse:
        return FakeResponse(status, body, headers)

    server = Server(answer)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield gateway_at(f"http://127.0.0.1:{server.server_port}/v1")
    finally:
        server.shutdown()
        server.server_close()


def name_of(answer: tuple[int, bytes]) -> str:
    return f"{answer[0]} {answer[1][:40]!r}"


@pytest.mark.parametrize("answer", REFUSALS, ids=name_of)
def test_a_refusal_means_that_nothing_happened(answer: tuple[int, bytes]) -> None:
    with always(*answer) as gateway:
        refused = Declined("So says PayMongo.")
        assert gateway.open_session(REQUEST) == refused
        assert gateway.look_up(BILL, "pay_1") == refused
        assert gateway.look_up_session(BILL, "cs_1") == refused
        assert gateway.cancel_session(BILL, "cs_1") == refused
        assert gateway.refund(order_of("pay_1")) == refused
        # But a refund that cannot be looked up may have been made.
        assert isinstance(gateway.look_up_refund(order_of("pay_1")), OutcomeUnknown)
        assert isinstance(gateway.look_up_refund(order_of("pay_1", reference="ref_1")), OutcomeUnknown)


def assert_all_unknown(gateway: PayMongoGateway) -> None:
    for outcome in (
        gateway.open_session(REQUEST),
        gateway.look_up(BILL, "pay_1"),
        gateway.look_up_session(BILL, "cs_1"),
        gateway.cancel_session(BILL, "cs_1"),
        gateway.refund(order_of("pay_1")),
        gateway.look_up_refund(order_of("pay_1")),
        gateway.look_up_refund(order_of("pay_1", reference="ref_1")),
    ):
        assert isinstance(outcome, OutcomeUnknown), outcome
        assert "sk_live" not in outcome.reason


@pytest.mark.parametrize("answer", NO_ANSWERS, ids=name_of)
def test_every_other_answer_says_nothing_of_what_happened(answer: tuple[int, bytes]) -> None:
    with always(*answer) as gateway:
        assert_all_unknown(gateway)


def test_nobody_there_says_nothing_of_what_happened() -> None:
    assert_all_unknown(patient_with_silence(gateway_at(f"http://127.0.0.1:{free_port()}/v1")))


def test_our_key_is_never_shown_even_if_a_refusal_repeats_it() -> None:
    with always(*errors(400, "parameter_invalid", "sk_live_fake may\u20b1not\ndo this. " + "x" * 900)) as gateway:
        refused = gateway.open_session(REQUEST)

    assert isinstance(refused, Declined)
    assert refused.reason.startswith("*** may not do this. xxx")
    assert len(refused.reason) == 200


def test_a_redirect_is_not_followed(fake: FakePayMongo) -> None:
    with always(307, b"", Location=f"{fake.api_base}/refunds") as gateway:
        assert isinstance(gateway.refund(order_of("pay_1")), OutcomeUnknown)
    assert fake.received == []


def test_an_answer_that_was_packed_although_nobody_asked_for_it_is_not_unpacked() -> None:
    with always(200, b"\x1f\x8b" + b"\x00" * 100, **{"Content-Encoding": "gzip"}) as gateway:
        assert isinstance(gateway.look_up_session(BILL, "cs_1"), OutcomeUnknown)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"], ids=["head", "body"])
def test_an_answer_that_drips_is_given_up_at_the_timeout(head: bytes) -> None:
    """Every byte is in time for the library's own timeout; together they would take more than a day."""
    given_up = []

    def drip(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.recv(65536)
            try:
                client.sendall(head)
                while True:
                    client.sendall(b"H" if not head else b" ")
                    time.sleep(0.05)
            except OSError:
                given_up.append(True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=drip, args=[listener])
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(NoAnswer):
            Transport("sk_live_fake", api_base=url, timeout_seconds=0.3, admission=admission_to("paymongo")).get(
                "/payments/pay_1"
            )
        thread.join()

    assert given_up == [True]


@pytest.mark.parametrize("mode", ["drop", "error", "error_before", "hang", "late"])
def test_a_lost_answer_says_nothing_and_is_not_sent_again(
    fake: FakePayMongo, order: GatewayRefundRequest, mode: Mode
) -> None:
    gateway = gateway_at(fake.api_base, timeout_seconds=1)
    fake.misbehave(mode, path="/v1/refunds")

    assert isinstance(gateway.refund(order), OutcomeUnknown)
    assert fake.count("POST", "/v1/refunds") == 1

    fake.release()
    applied = [made["id"] for made in fake.refunds_of(order.transaction_id)]
    assert len(applied) == (0 if mode in ("error_before", "late") else 1)
    found = gateway.look_up_refund(order)
    assert found == (Approved(applied[0]) if applied else None)
    fake.apply_late()
    assert isinstance(gateway.look_up_refund(order), Approved) == (mode != "error_before")


def test_a_key_that_paymongo_does_not_know_says_nothing_of_what_happened(
    fake: FakePayMongo, order: GatewayRefundRequest
) -> None:
    gateway = gateway_at(fake.api_base, api_key="sk_live_rotated")

    for outcome in (gateway.refund(order), gateway.look_up_refund(order), gateway.look_up(BILL, order.transaction_id)):
        assert isinstance(outcome, OutcomeUnknown)
    assert isinstance(gateway.ping(), Declined)


def test_a_ping_shows_nobodys_payment(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    assert isinstance(gateway.ping(), Reachable)
    assert isinstance(gateway_at(f"http://127.0.0.1:{free_port()}/v1").ping(), OutcomeUnknown)
    assert [request.path for request in fake.received] == ["/v1/payments/pay_000000000000000000000000"]


def test_keys_may_be_ignored_and_then_there_are_two(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    assert opened(gateway) != opened(gateway)

    fake.remembers_keys = True
    again = replace(REQUEST, number=2)
    assert opened(gateway, again) == opened(gateway, again)


def test_objects_of_the_other_mode_pay_nothing_and_say_nothing(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest
) -> None:
    (reference,) = fake.sessions
    made = gateway.refund(order)
    assert isinstance(made, Approved)
    fake.tamper("payments", order.transaction_id, livemode=False)
    fake.tamper("refunds", made.reference, livemode=False)

    not_believed = OutcomeUnknown("an object of the other mode, test or live, than our key's")
    assert isinstance(gateway.look_up(BILL, order.transaction_id), Declined)
    assert gateway.look_up_session(BILL, reference) == not_believed
    assert gateway.look_up_refund(order) == not_believed
    assert gateway.look_up_refund(replace(order, reference=made.reference)) == not_believed


# Sessions


def test_a_session_is_paid_if_one_of_its_payments_is(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    reference = opened(gateway)
    fake.decline(reference)
    assert looked_up(gateway, reference).status == SessionStatus.OPEN
    transaction_id = fake.start_processing(reference)
    assert looked_up(gateway, reference).status == SessionStatus.PROCESSING
    fake.pay(reference)

    found = looked_up(gateway, reference)

    assert verify(BILL, found) == Approved(transaction_id)
    assert gateway.look_up(BILL, transaction_id) == replace(found, reference=transaction_id)


@pytest.mark.parametrize("says", ["active", "paid", "expired", "a_status_of_next_year"])
def test_what_a_session_says_of_itself_does_not_make_it_paid_or_unpaid(
    fake: FakePayMongo, gateway: PayMongoGateway, says: str
) -> None:
    unpaid, paid = opened(gateway), opened(gateway)
    fake.pay(paid)
    fake.session_status = says

    assert looked_up(gateway, paid).status == SessionStatus.SUCCEEDED
    ended = says == "expired"
    assert looked_up(gateway, unpaid).status == (SessionStatus.EXPIRED if ended else SessionStatus.OPEN)


@pytest.mark.parametrize(
    "left_out",
    [
        ["payment.metadata"],
        ["session.metadata"],
        ["payment.metadata", "session.metadata"],
        ["payment.metadata", "session.reference_number"],
        ["payment.refunds"],
    ],
    ids=str,
)
def test_money_of_a_session_is_ours_whichever_answer_leaves_something_out(
    fake: FakePayMongo, gateway: PayMongoGateway, left_out: list[str]
) -> None:
    reference = opened(gateway)
    transaction_id = fake.pay(reference)
    fake.left_out = set(left_out)

    assert verify(BILL, looked_up(gateway, reference)) == Approved(transaction_id)


TAMPERED: list[dict[str, Any]] = [
    {"metadata": {"payment_id": "8", "consultation_id": "5"}},
    {"metadata": {"payment_id": "7", "consultation_id": "6"}},
    {"metadata": {"payment_id": "07", "consultation_id": "5"}},
    {"metadata": {"payment_id": 7, "consultation_id": 5}},
    {"metadata": {"payment_id": "\uff17", "consultation_id": "5"}},
    {"metadata": {"payment_id": "7" * 30, "consultation_id": "5"}},
    {"metadata": []},
    {"currency": "USD"},
    {"amount": 499_999},
    {"amount": 500_001},
    {"amount": 0},
    {"status": "failed"},
    {"status": "pending"},
    {"status": "a_status_of_next_year"},
]


@pytest.mark.parametrize("attributes", TAMPERED, ids=str)
def test_money_for_something_else_or_not_paid_is_declined(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest, attributes: dict[str, Any]
) -> None:
    fake.tamper("payments", order.transaction_id, **attributes)

    found = gateway.look_up(BILL, order.transaction_id)

    assert isinstance(found, CheckoutSession)
    verdict = verify(BILL, found)
    assert isinstance(verdict, Declined)
    assert verdict.reason


@pytest.mark.parametrize(
    "attributes",
    [{"amount": "500000"}, {"amount": 5000.0}, {"amount": True}, {"amount": -1}, {"amount": 2**63}, {"currency": 7}],
    ids=str,
)
def test_money_that_cannot_be_read_is_unknown(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest, attributes: dict[str, Any]
) -> None:
    fake.tamper("payments", order.transaction_id, **attributes)

    assert isinstance(gateway.look_up(BILL, order.transaction_id), OutcomeUnknown)


@pytest.mark.parametrize("url", [None, "", 7, "javascript:alert(1)", "//evil.example", "ftp://a/b", "https://a b/"])
def test_a_session_without_an_address_to_pay_at_is_not_shown(
    fake: FakePayMongo, gateway: PayMongoGateway, url: Any
) -> None:
    reference = opened(gateway)
    fake.tamper("sessions", reference, checkout_url=url)

    assert isinstance(gateway.look_up_session(BILL, reference), OutcomeUnknown)


def test_patients_are_sent_to_plain_http_by_a_look_alike_only(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    reference = opened(gateway)
    session = fake.perform("GET", f"/v1/checkout_sessions/{reference}", {})["data"]

    assert Reader(None, schemes=frozenset({"http"})).session_of(session).redirect_url is not None
    with pytest.raises(Unreadable):
        Reader(None, schemes=frozenset({"https"})).session_of(session)


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"payments": [], "status": "active"}, SessionStatus.OPEN),
        ({"payments": None, "status": "active"}, SessionStatus.OPEN),
        ({"payments": [], "status": "expired"}, SessionStatus.EXPIRED),
        # Ended, and nothing says how.
        ({"payments": None, "status": "expired"}, None),
        # Its intent knows of a payment, and shows it or not.
        ({"payments": [], "payment_intent": {"attributes": {"status": "succeeded"}}}, None),
        ({"payments": None, "payment_intent": {"attributes": {"status": "processing"}}}, None),
        ({"payments": [], "payment_intent": {"attributes": {"status": "succeeded", "payments": ["paid"]}}}, "paid"),
    ],
    ids=str,
)
def test_a_session_whose_payments_are_missing_is_not_taken_for_unpaid(
    fake: FakePayMongo, gateway: PayMongoGateway, attributes: dict[str, Any], status: str | None
) -> None:
    reference = opened(gateway)
    session = fake.perform("GET", f"/v1/checkout_sessions/{reference}", {})["data"]
    fake.pay(reference)
    (paid,) = fake.payments.values()
    text = json.dumps({**session["attributes"], **attributes}).replace('"paid"', json.dumps(paid))
    reader = Reader(None, schemes=frozenset({"http"}))

    if status is None:
        with pytest.raises(Unreadable):
            reader.session_of({**session, "attributes": json.loads(text)})
    else:
        found = reader.session_of({**session, "attributes": json.loads(text)})
        assert found.status == (SessionStatus.SUCCEEDED if status == "paid" else status)


# Ending sessions


@pytest.mark.parametrize(
    "answer", [None, FakeResponse(204, b""), FakeResponse(200, b"{}"), FakeResponse(200, b'{"data": {"id": "cs_1"}}')]
)
def test_a_session_is_ended_whatever_expiring_it_answers(
    fake: FakePayMongo, gateway: PayMongoGateway, answer: FakeResponse | None
) -> None:
    fake.expire_answer = answer
    reference = opened(gateway)

    for _ in range(2):  # the second time it is refused, and the session is read
        ended = gateway.cancel_session(BILL, reference)
        assert isinstance(ended, CheckoutSession), ended
        assert (ended.reference, ended.status) == (reference, SessionStatus.CANCELLED)
        assert ended.redirect_url is None
    assert looked_up(gateway, reference).status == SessionStatus.EXPIRED


def test_a_session_that_is_paid_or_being_paid_comes_back_as_it_is(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    paid, processing = opened(gateway), opened(gateway)
    transaction_id = fake.pay(paid)
    fake.start_processing(processing)

    found = gateway.cancel_session(BILL, paid)

    assert isinstance(found, CheckoutSession)
    assert verify(BILL, found) == Approved(transaction_id)
    on_its_way = gateway.cancel_session(BILL, processing)
    assert isinstance(on_its_way, CheckoutSession)
    assert on_its_way.status == SessionStatus.PROCESSING


def test_a_session_that_cannot_be_ended_is_not_said_to_have_ended(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    reference = opened(gateway)
    for mode in ("refuse", "error_before"):
        fake.misbehave(mode, path="/v1/checkout_sessions")

        assert isinstance(gateway.cancel_session(BILL, reference), OutcomeUnknown)
    fake.session_status = "active"
    assert isinstance(gateway.cancel_session(BILL, reference), OutcomeUnknown)


def test_money_that_comes_after_the_end_is_seen(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    """A GCash link lives for four hours after the customer chose it, whatever became of the session."""
    reference = opened(gateway)
    gateway.cancel_session(BILL, reference)
    transaction_id = fake.pay(reference, late=True)

    assert verify(BILL, looked_up(gateway, reference)) == Approved(transaction_id)


# Refunds


@pytest.mark.parametrize(
    ("status", "settled"), [("pending", False), ("processing", False), ("succeeded", True), ("failed", None)]
)
def test_what_a_refunds_status_means(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest, status: str, settled: bool | None
) -> None:
    fake.refunds_start_as = status

    made = gateway.refund(order)

    (reference,) = fake.refunds
    wanted = Declined("The gateway says: failed.", reference) if settled is None else Approved(reference, settled)
    assert made == wanted
    assert gateway.look_up_refund(order) == wanted
    assert gateway.look_up_refund(replace(order, reference=reference)) == wanted


def test_a_status_that_nobody_knows_is_not_believed_either_way(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest
) -> None:
    fake.refunds_start_as = "a_status_of_next_year"

    assert isinstance(gateway.refund(order), OutcomeUnknown)
    assert isinstance(gateway.look_up_refund(order), OutcomeUnknown)


@pytest.mark.parametrize(
    "left_out",
    [
        ["payment.refunds"],
        ["refund.metadata"],
        ["refund.notes"],
        ["payment.refunds", "refund.metadata", "page.has_more"],
        ["payment.refunds", "refund.notes"],
    ],
    ids=str,
)
@pytest.mark.parametrize("oldest_first", [False, True])
def test_a_refund_is_found_whichever_answer_leaves_something_out(
    fake: FakePayMongo,
    gateway: PayMongoGateway,
    order: GatewayRefundRequest,
    left_out: list[str],
    oldest_first: bool,
) -> None:
    fake.refund_in_dashboard(order.transaction_id, order.amount_minor, notes="by hand")
    made = gateway.refund(replace(order, amount_minor=order.amount_minor))
    for _ in range(120):  # pages have 100
        fake.refund_in_dashboard(order.transaction_id, 1)
    fake.left_out, fake.lists_oldest_first = set(left_out), oldest_first

    assert isinstance(made, Approved)
    assert gateway.look_up_refund(order) == made


def test_a_refund_that_is_nowhere_is_known_not_to_be_there(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest
) -> None:
    for _ in range(120):
        fake.refund_in_dashboard(order.transaction_id, 1)
    assert isinstance(gateway.refund(replace(order, refund_id=32)), Approved)

    assert gateway.look_up_refund(order) is None


def test_a_refund_of_that_amount_that_does_not_say_whose_it_is_leaves_it_unknown(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest
) -> None:
    gateway.refund(order)
    fake.left_out = {"refund.metadata", "refund.notes"}

    assert isinstance(gateway.look_up_refund(order), OutcomeUnknown)
    assert gateway.look_up_refund(replace(order, amount_minor=100)) is None
    # Unless it is known by now to be another one.
    assert gateway.look_up_refund(replace(order, other_references=frozenset(fake.refunds))) is None


def test_pages_are_read_back_to_the_payment_and_no_further(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest
) -> None:
    (older, *_) = [fake.refund_in_dashboard(order.transaction_id, 1) for _ in range(250)]
    older_than_the_payment = [each["id"] for each in list(fake.refunds.values())[:200]]
    paid_at = fake.payments[order.transaction_id]["attributes"]["paid_at"]
    for refund_id in older_than_the_payment:
        fake.tamper("refunds", refund_id, created_at=paid_at - 60)
    assert older["id"] in older_than_the_payment

    assert gateway.look_up_refund(order) is None

    assert len(sent(fake, "/v1/refunds", "GET")) == 1


@pytest.mark.parametrize("lease_seconds", [10, 60])
def test_a_search_that_ends_before_the_last_page_is_no_proof(
    fake: FakePayMongo, order: GatewayRefundRequest, lease_seconds: int
) -> None:
    """A refund's lease lasts for so many calls; whoever comes after it may be at work on the same refund."""
    for _ in range(1_100):
        fake.refund_in_dashboard(order.transaction_id, 1)

    found = gateway_at(fake.api_base, lease_seconds=lease_seconds).look_up_refund(order)

    assert isinstance(found, OutcomeUnknown)
    assert len(sent(fake, "/v1/refunds", "GET")) == (1 if lease_seconds == 10 else 10)


@pytest.mark.parametrize("spoil", [{"amount": 1}, {"payment_id": "pay_other"}, {"currency": "USD"}], ids=str)
def test_an_answer_about_another_refund_is_not_believed(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest, spoil: dict[str, Any]
) -> None:
    made = gateway.refund(order)
    assert isinstance(made, Approved)
    fake.tamper("refunds", made.reference, **spoil)

    assert isinstance(gateway.look_up_refund(replace(order, reference=made.reference)), OutcomeUnknown)


def test_what_another_system_refunded_does_not_stand_in_the_way(
    fake: FakePayMongo, gateway: PayMongoGateway, order: GatewayRefundRequest
) -> None:
    made = gateway.refund(order)
    other = fake.pay(opened(gateway))
    odd = fake.refund_in_dashboard(other, 100)
    fake.tamper("refunds", odd["id"], status=None, currency=None)
    fake.left_out = {"payment.refunds"}

    assert gateway.look_up_refund(order) == made


def test_refunds_of_qr_ph_are_refused_as_they_are_by_paymongo(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    reference = opened(gateway, replace(REQUEST, charge=replace(BILL, payment_method="bank_transfer")))

    refused = gateway.refund(order_of(fake.pay(reference)))

    assert refused == Declined("Payments by QR Ph cannot be refunded.")
    assert gateway.capabilities.methods["bank_transfer"] == "not"
