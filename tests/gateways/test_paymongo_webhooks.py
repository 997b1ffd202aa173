"""PayMongo's events: who signed them, what they are about, and what the gateway itself says of that."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from payments_app.gateways.base import Approved, CheckoutSession, GatewayRefund, OutcomeUnknown, SessionStatus, verify
from payments_app.gateways.events import (
    ChargeRefunded,
    DisputeStatus,
    GatewayDispute,
    GatewayEvent,
    InvalidSignature,
    MoneyReceived,
    NotBelieved,
    OtherMode,
    PaymentAttemptFailed,
)
from payments_app.gateways.paymongo.client import PayMongoGateway
from payments_app.gateways.paymongo.webhooks import MAY_BE_LATE
from tests.gateways.test_paymongo import BILL, opened, order_of
from tests.support.admissions import admission_to
from tests.support.fake_gateway import Wire
from tests.support.fake_paymongo import FakePayMongo

LIVE, TEST = "sk_live_fake", "sk_test_fake"


@pytest.fixture(scope="module")
def server() -> Iterator[FakePayMongo]:
    fake = FakePayMongo()
    yield fake
    fake.close()


@pytest.fixture
def fake(server: FakePayMongo) -> Iterator[FakePayMongo]:
    yield server
    server.reset()


def gateway_with(fake: FakePayMongo, *secrets: str, api_key: str = LIVE) -> PayMongoGateway:
    return PayMongoGateway(
        api_key,
        api_base=fake.api_base,
        timeout_seconds=1,
        lease_seconds=60,
        admission=admission_to("paymongo"),
        webhook_secrets=secrets,
    )


@pytest.fixture
def gateway(fake: FakePayMongo) -> PayMongoGateway:
    return gateway_with(fake, fake.webhook_secret)


def read_signed(
    gateway: PayMongoGateway, body: bytes, signature: str | None, *, at: datetime | None = None
) -> GatewayEvent | OutcomeUnknown:
    headers = {} if signature is None else {"Paymongo-Signature": signature}
    return gateway.read_event(body, headers, received_at=at or datetime.now(UTC))


def read(fake: FakePayMongo, gateway: PayMongoGateway, event: Wire) -> GatewayEvent:
    body = json.dumps(event).encode()
    found = read_signed(gateway, body, fake.sign(body))
    assert isinstance(found, GatewayEvent), found
    return found


@pytest.fixture
def paid(fake: FakePayMongo, gateway: PayMongoGateway) -> str:
    """A payment that was paid at PayMongo, of which nobody has told us."""
    return fake.pay(opened(gateway))


@pytest.fixture
def body(fake: FakePayMongo, paid: str) -> bytes:
    return json.dumps(fake.payment_event("paid", paid), indent=2).encode()


# Signatures


def test_a_signed_event_is_read(fake: FakePayMongo, gateway: PayMongoGateway, paid: str, body: bytes) -> None:
    event = read_signed(gateway, body, fake.sign(body))

    assert isinstance(event, GatewayEvent)
    assert (event.type, event.reference, event.is_readable) == ("payment.paid", paid, True)
    assert event.event_id == json.loads(body)["data"]["id"]
    assert datetime.now(UTC) - event.created_at < timedelta(minutes=10)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _good: None,
        lambda _good: "",
        lambda _good: "junk",
        lambda good: good.replace("li=", "v1="),
        lambda good: good.partition(",")[0],
        lambda good: good.partition(",")[2],
        lambda good: good[:-1],
        lambda good: good.replace("t=", "t=x"),
        lambda good: good.replace("t=", "t=1"),
        lambda good: f"{good.partition(',')[0]},te=,li=",
        lambda good: f"{good.partition(',')[0]},te=\u00e9,li=\u00e9",
        lambda _good: "t=,te=,li=",
        lambda _good: ",,,===",
        # Two times, of which others believe the last; as two lines of the header arrive, too.
        lambda good: f"{good},t=1",
        lambda good: f"{good}, t=1,li=00",
        lambda good: f"{good},{good}",
    ],
)
def test_a_malformed_signature_is_none(
    fake: FakePayMongo, gateway: PayMongoGateway, body: bytes, spoil: Callable[[str], str | None]
) -> None:
    with pytest.raises(InvalidSignature):
        read_signed(gateway, body, spoil(fake.sign(body)))


def test_what_is_not_signed_is_not_asked_for(fake: FakePayMongo, gateway: PayMongoGateway, body: bytes) -> None:
    before = len(fake.received)
    for signature, signed in (
        (fake.sign(body, secret="whsk_of_somebody_else"), body),
        (fake.sign(body, at=time.time() - 301), body),
        (fake.sign(body), body + b" "),
        (fake.sign(body), body.replace(b"paid", b"void")),
        (fake.sign(body), b""),
    ):
        with pytest.raises(InvalidSignature):
            read_signed(gateway, signed, signature)

    assert len(fake.received) == before


def test_a_signature_counts_for_300_seconds(fake: FakePayMongo, gateway: PayMongoGateway, body: bytes) -> None:
    signed_at = 1_795_000_000
    signature = fake.sign(body, at=signed_at)

    for seconds in (0, 299, 300):
        assert isinstance(
            read_signed(gateway, body, signature, at=datetime.fromtimestamp(signed_at + seconds, UTC)), GatewayEvent
        )
    with pytest.raises(InvalidSignature):
        read_signed(gateway, body, signature, at=datetime.fromtimestamp(signed_at + 301, UTC))


def test_while_a_secret_is_replaced_both_are_good(fake: FakePayMongo, body: bytes) -> None:
    both = gateway_with(fake, "whsk_new", "whsk_old")

    for secret in ("whsk_new", "whsk_old"):
        assert isinstance(read_signed(both, body, fake.sign(body, secret=secret)), GatewayEvent)
    for secret in (fake.webhook_secret, "whsk_new,whsk_old"):
        with pytest.raises(InvalidSignature):
            read_signed(both, body, fake.sign(body, secret=secret))


def test_without_a_secret_no_event_is_good(fake: FakePayMongo, body: bytes) -> None:
    without = gateway_with(fake)

    assert not without.has_webhook_secret
    for signature in (fake.sign(body), None):
        with pytest.raises(InvalidSignature):
            read_signed(without, body, signature)


# Modes


@pytest.mark.parametrize(
    ("api_key", "signed_as", "modes"),
    [
        (LIVE, "te", (None, None)),
        (TEST, "li", (None, None)),
        (LIVE, "li", (False, None)),
        (LIVE, "li", (True, False)),
        (TEST, "te", (True, None)),
        (TEST, "te", (None, True)),
        (LIVE, "te", (True, True)),
    ],
)
def test_an_event_or_object_or_signature_of_the_other_mode_is_refused(
    fake: FakePayMongo, paid: str, api_key: str, signed_as: str, modes: tuple[bool | None, bool | None]
) -> None:
    told = fake.payment_event("paid", paid)
    for holder, livemode in zip((told["data"], told["data"]["attributes"]["data"]), modes, strict=True):
        del holder["attributes"]["livemode"]
        if livemode is not None:
            holder["attributes"]["livemode"] = livemode
    body = json.dumps(told).encode()

    with pytest.raises(OtherMode) as refused:
        read_signed(gateway_with(fake, fake.webhook_secret, api_key=api_key), body, fake.sign(body, name=signed_as))

    assert refused.value.reference in (told["data"]["id"], paid)


def test_an_object_that_is_of_the_other_mode_when_it_is_read_is_refused(
    fake: FakePayMongo, gateway: PayMongoGateway, paid: str, body: bytes
) -> None:
    fake.tamper("payments", paid, livemode=False)

    with pytest.raises(OtherMode):
        read_signed(gateway, body, fake.sign(body))


# What they say


def test_a_paid_session_is_read_again_with_its_money(fake: FakePayMongo, gateway: PayMongoGateway, paid: str) -> None:
    (reference,) = fake.sessions
    event = fake.session_paid(reference)
    # What the event itself says of it counts for nothing.
    event["data"]["attributes"]["data"]["attributes"] = {"payments": [{"attributes": {"amount": 1}}]}

    payload = read(fake, gateway, event).payload

    assert isinstance(payload, CheckoutSession)
    assert (payload.reference, verify(BILL, payload)) == (reference, Approved(paid))


def test_a_paid_payment_is_money_that_arrived(fake: FakePayMongo, gateway: PayMongoGateway, paid: str) -> None:
    payload = read(fake, gateway, fake.payment_event("paid", paid)).payload

    assert isinstance(payload, MoneyReceived)
    assert (payload.money.transaction_id, payload.money.mismatch_reason(BILL)) == (paid, None)


def test_money_is_not_believed_before_the_gateway_says_it_too(fake: FakePayMongo, gateway: PayMongoGateway) -> None:
    """It may only be late: an answer that is no 200 has the event sent again, until that could cost us the webhook."""
    reference = opened(gateway)
    transaction_id = fake.start_processing(reference)
    for event in (fake.session_paid(reference), fake.payment_event("paid", transaction_id)):
        body, at = json.dumps(event).encode(), datetime.now(UTC)
        assert isinstance(read_signed(gateway, body, fake.sign(body)), OutcomeUnknown)
        late, signature = at + MAY_BE_LATE, fake.sign(body, at=(at + MAY_BE_LATE).timestamp())
        found = read_signed(gateway, body, signature, at=late)
        assert isinstance(found, GatewayEvent)
        assert isinstance(found.payload, NotBelieved)
        # One that does not say when it was made could be as old.
        del event["data"]["attributes"]["created_at"]
        assert isinstance(read(fake, gateway, event).payload, NotBelieved)
    fake.pay(reference)
    for event in (fake.session_paid(reference), fake.payment_event("paid", transaction_id)):
        assert read(fake, gateway, event).payload is not None


@pytest.mark.parametrize("mode", ["drop", "error_before"])
def test_an_event_waits_for_a_gateway_that_does_not_answer(
    fake: FakePayMongo, gateway: PayMongoGateway, body: bytes, mode: Any
) -> None:
    fake.misbehave(mode, method="GET", path="/v1/payments")

    assert isinstance(read_signed(gateway, body, fake.sign(body)), OutcomeUnknown)
    assert isinstance(read_signed(gateway, body, fake.sign(body)), GatewayEvent)


def test_a_failed_payment_is_an_attempt_unless_it_was_paid_after_all(
    fake: FakePayMongo, gateway: PayMongoGateway
) -> None:
    reference = opened(gateway)
    transaction_id = fake.decline(reference)
    event = fake.payment_event("failed", transaction_id)

    payload = read(fake, gateway, event).payload

    assert isinstance(payload, PaymentAttemptFailed)
    assert (payload.session.status, payload.session.money.payment_id) == (SessionStatus.OPEN, BILL.payment_id)
    fake.tamper("payments", transaction_id, status="paid")
    assert isinstance(read(fake, gateway, event).payload, MoneyReceived)
    fake.tamper("payments", transaction_id, status="pending")
    assert (read(fake, gateway, event).payload, read(fake, gateway, event).is_readable) == (None, True)


@pytest.mark.parametrize("kind", ["payment.refunded", "payment.refund.updated", "refund.succeeded", "refund.updated"])
@pytest.mark.parametrize("left_out", [[], ["refund.metadata"], ["refund.notes"]], ids=str)
def test_a_refund_is_named_by_events_of_both_generations(
    fake: FakePayMongo, gateway: PayMongoGateway, paid: str, kind: str, left_out: list[str]
) -> None:
    made = gateway.refund(order_of(paid))
    assert isinstance(made, Approved)
    fake.left_out = set(left_out)

    payload = read(fake, gateway, fake.refund_event(kind, made.reference)).payload

    assert isinstance(payload, GatewayRefund)
    assert (payload.reference, payload.transaction_id, payload.amount_minor) == (made.reference, paid, 200_000)
    assert (payload.refund_id, payload.payment_id, payload.outcome) == (31, BILL.payment_id, made)


@pytest.mark.parametrize("left_out", [[], ["payment.refunds"]], ids=str)
def test_an_event_of_a_refunded_payment_names_all_its_refunds(
    fake: FakePayMongo, gateway: PayMongoGateway, paid: str, left_out: list[str]
) -> None:
    made = gateway.refund(order_of(paid))
    elsewhere = fake.refund_in_dashboard(paid, 100)
    failed = fake.refund_in_dashboard(paid, 7)
    fake.settle_refund(failed["id"], "failed")
    fake.left_out = set(left_out)

    payload = read(fake, gateway, fake.payment_event("refunded", paid)).payload

    assert isinstance(payload, ChargeRefunded)
    assert isinstance(made, Approved)
    assert (payload.transaction_id, payload.returned_minor, payload.currency) == (paid, 200_100, "PHP")
    ids = {refund.reference: refund.refund_id for refund in payload.refunds}
    assert ids == {made.reference: 31, elsewhere["id"]: None, failed["id"]: None}


def test_a_refund_that_fails_later_is_read_as_failed(fake: FakePayMongo, gateway: PayMongoGateway, paid: str) -> None:
    made = gateway.refund(order_of(paid))
    assert isinstance(made, Approved)
    event = fake.refund_event("refund.updated", made.reference)
    fake.settle_refund(made.reference, "failed")

    payload = read(fake, gateway, event).payload

    assert isinstance(payload, GatewayRefund)
    assert not isinstance(payload.outcome, Approved)


@pytest.mark.parametrize(
    ("kind", "attributes", "status"),
    [
        ("created", {}, DisputeStatus.NEEDS_RESPONSE),
        ("created", {"status": "a_status_of_next_year"}, DisputeStatus.NEEDS_RESPONSE),
        ("created", {"status": "inquiry"}, DisputeStatus.INQUIRY),
        ("updated", {"status": "under_review"}, DisputeStatus.UNDER_REVIEW),
        ("resolved", {"status": "won"}, DisputeStatus.WON),
        ("resolved", {"status": "lost"}, DisputeStatus.LOST),
        ("resolved", {"status": "inquiry_closed"}, DisputeStatus.INQUIRY_CLOSED),
    ],
)
def test_a_dispute_is_read_from_its_event(
    fake: FakePayMongo, paid: str, kind: str, attributes: Wire, status: DisputeStatus
) -> None:
    gateway = gateway_with(fake, fake.webhook_secret)
    event = fake.dispute_event(kind, paid, reason="fraudulent", due_at=1_795_000_000, **attributes)

    assert read(fake, gateway, event).payload == GatewayDispute(
        reference=f"dispute_{paid}",
        transaction_id=paid,
        amount_minor=BILL.amount_minor,
        currency="PHP",
        reason="fraudulent",
        status=status,
        due_at=datetime.fromtimestamp(1_795_000_000, UTC),
    )


@pytest.mark.parametrize("named", ["payment_id", "payment", "whole"])
def test_a_dispute_without_an_amount_is_about_the_whole_payment(
    fake: FakePayMongo, gateway: PayMongoGateway, paid: str, named: str
) -> None:
    event = fake.dispute_event("created", paid)
    attributes = event["data"]["attributes"]["data"]["attributes"]
    attributes.clear()
    attributes.update({"payment": {"id": paid, "attributes": {}}} if named == "whole" else {named: paid})

    payload = read(fake, gateway, event).payload

    assert isinstance(payload, GatewayDispute)
    assert (payload.transaction_id, payload.amount_minor, payload.due_at) == (paid, BILL.amount_minor, None)


@pytest.mark.parametrize("currency", ["PESOS", "P", "₱", 7])
def test_a_dispute_in_what_is_no_currency_is_unreadable(
    fake: FakePayMongo, gateway: PayMongoGateway, paid: str, currency: Any
) -> None:
    event = fake.dispute_event("created", paid, currency=currency)

    found = read(fake, gateway, event)

    assert (found.payload, found.is_readable) == (None, False)


# Shapes

EVENT: Wire = {
    "data": {
        "id": "evt_1",
        "type": "event",
        "attributes": {"type": "source.chargeable", "created_at": 1, "data": {"id": "src_1", "type": "source"}},
    }
}


RESOLVED = json.dumps(
    {
        "data": {
            "id": "evt_1",
            "attributes": {
                "type": "dispute.resolved",
                "data": {"id": "d_1", "attributes": {"amount": 1, "status": "won"}},
            },
        }
    }
)


@pytest.mark.parametrize(
    "kind", ["source.chargeable", "qrph.expired", "qr.expired", "link.payment.paid", "payout.done"]
)
def test_an_event_on_which_no_money_hangs_is_read_as_nothing(
    fake: FakePayMongo, gateway: PayMongoGateway, kind: str
) -> None:
    event = json.loads(json.dumps(EVENT).replace("source.chargeable", kind))

    found = read(fake, gateway, event)

    assert (found.event_id, found.type, found.reference) == ("evt_1", kind, "src_1")
    assert (found.payload, found.is_readable) == (None, True)
    assert fake.received == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "null",
        "[]",
        "{}",
        '{"data": []}',
        '{"data": {"id": "evt_1"}}',
        '{"data": {"id": "evt_1", "attributes": {"type": ["payment.paid"]}}}',
        '{"data": {"id": "evt_1", "attributes": {"type": "payment.paid"}}}',
        '{"data": {"id": "evt_1", "attributes": {"type": "payment.paid", "data": {"id": "../refunds"}}}}',
        '{"data": {"id": "evt_1", "attributes": {"type": "payment.paid", "data": {"id": "pay_not_there"}}}}',
        '{"data": {"id": "evt_1", "attributes": {"type": "payment.refunded", "data": {"id": 7}}}}',
        '{"data": {"id": "evt_1", "attributes": {"type": "refund.of_next_year", "data": {"id": "ref_1"}}}}',
        '{"data": {"id": "evt_1", "attributes": {"type": "payment.authorized", "data": {"id": "pay_1"}}}}',
        '{"data": {"id": "evt_1", "attributes": {"type": "checkout_session.next", "data": {"id": "cs_1"}}}}',
        '{"data": {"id": "evt_1", "attributes": {"type": "dispute.next", "data": {"id": "d_1"}}}}',
        '{"data": {"id": "evt_1", "attributes": {"type": "dispute.created", "data": {"id": "d_1"}}}}',
        RESOLVED.replace("won", "settled"),
        RESOLVED.replace("won", "needs_response"),
        "[" * 30_000,
        '{"a":' * 90_000,
        f'{{"data": {"9" * 5_000}}}',
    ],
    ids=lambda text: text[:110],
)
def test_what_may_be_about_money_and_cannot_be_read_is_said_to_be_so(
    fake: FakePayMongo, gateway: PayMongoGateway, text: str
) -> None:
    body = text.encode()

    found = read_signed(gateway, body, fake.sign(body))

    assert isinstance(found, GatewayEvent)
    assert (found.payload, found.is_readable) == (None, False)
    assert found == replace(read_again(fake, gateway, body), created_at=found.created_at)
    assert found.event_id == "evt_1" or found.event_id.startswith("sha256:")


def read_again(fake: FakePayMongo, gateway: PayMongoGateway, body: bytes) -> GatewayEvent:
    """Signed anew, as each delivery is: it has the same id."""
    found = read_signed(gateway, body, fake.sign(body, at=time.time() - 60))
    assert isinstance(found, GatewayEvent)
    return found


@pytest.mark.parametrize("created_at", [None, "now", 1e300, float("nan"), -(10**11), [], True], ids=str)
def test_a_time_that_cannot_be_read_is_that_of_the_arrival(
    fake: FakePayMongo, gateway: PayMongoGateway, created_at: Any
) -> None:
    event = json.loads(json.dumps(EVENT))
    event["data"]["attributes"]["created_at"] = created_at
    body, at = json.dumps(event).encode(), datetime.now(UTC)

    found = read_signed(gateway, body, fake.sign(body), at=at)

    assert isinstance(found, GatewayEvent)
    assert found.created_at == (datetime.fromtimestamp(1, UTC) if created_at is True else at)


def test_refunds_beyond_what_is_searched_are_left_to_staff_and_not_asked_for_again(
    fake: FakePayMongo, paid: str
) -> None:
    """PayMongo disables a webhook of which three events were given up."""
    fake.left_out = {"payment.refunds"}
    for _ in range(101):
        fake.refund_in_dashboard(paid, 1)
    gateway = PayMongoGateway(
        LIVE,
        api_base=fake.api_base,
        timeout_seconds=3,
        lease_seconds=10,
        admission=admission_to("paymongo"),
        webhook_secrets=[fake.webhook_secret],
    )

    event = read(fake, gateway, fake.payment_event("refunded", paid))

    assert (event.payload, event.is_readable) == (None, False)
