"""What every gateway promises, asked of each: two that nobody else is behind, and Stripe and PayMongo over real HTTP.

Stripe is answered for by our own fake, and by localstripe, which somebody else wrote; its gaps are named where it is
left out. PayMongo is answered for by our own fake alone, with its keys ignored and with its keys remembered.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from payments_app import clock
from payments_app.gateways.base import (
    Approved,
    Charge,
    CheckoutSession,
    Declined,
    EventSource,
    Gateway,
    GatewayRefundRequest,
    PaymentLists,
    SessionStatus,
    verify,
)
from payments_app.gateways.capabilities import CheckoutKind
from payments_app.gateways.manual import ManualGateway
from payments_app.gateways.paymongo.client import PayMongoGateway
from payments_app.gateways.sandbox import SandboxGateway
from payments_app.gateways.stripe.client import StripeGateway
from tests.support.admissions import admission_to
from tests.support.fake_stripe import FakeStripe
from tests.support.localstripe import LocalStripe, local_stripe
from tests.support.paymongo_apps import fake_paymongo
from tests.support.session_requests import session_request
from tests.support.stripe_apps import fake_stripe

_ids = count(1)


@dataclass(frozen=True)
class Adapter:
    """A gateway, and how its customers pay."""

    name: str
    gateway: Gateway
    pay: Callable[[str], Any]

    @property
    def judges(self) -> bool:
        """Whether it knows of money by itself; the others take staff's word, or anybody's."""
        return isinstance(self.gateway, EventSource)


def stripe_at(server: FakeStripe | LocalStripe, *, is_hosted: bool = False) -> StripeGateway:
    return StripeGateway(
        server.api_key,
        api_base=server.url,
        timeout_seconds=30,
        lease_seconds=60,
        admission=admission_to("stripe"),
        is_hosted=is_hosted,
    )


@contextmanager
def adapter_called(name: str) -> Iterator[Adapter]:
    def nobody_pays(_reference: str) -> None:
        """Staff see it arrive, or nothing has to."""

    match name:
        case "sandbox":
            yield Adapter(name, SandboxGateway("a key for tests"), nobody_pays)
        case "manual":
            yield Adapter(name, ManualGateway({"gcash": "Send it to 0917."}), nobody_pays)
        case "stripe":
            with fake_stripe() as fake:
                yield Adapter(name, stripe_at(fake), fake.pay)
        case "stripe hosted":
            with fake_stripe() as fake:
                yield Adapter(name, stripe_at(fake, is_hosted=True), fake.submit)
        case "localstripe":
            with local_stripe() as server:
                yield Adapter(name, stripe_at(server), server.pay)
        case "paymongo" | "paymongo with keys":
            with fake_paymongo() as account:
                account.remembers_keys = name == "paymongo with keys"
                gateway = PayMongoGateway(
                    account.api_key,
                    api_base=account.api_base,
                    timeout_seconds=30,
                    lease_seconds=200,
                    admission=admission_to("paymongo"),
                )
                yield Adapter(name, gateway, account.pay)


@pytest.fixture(scope="module", params=["sandbox", "manual", "stripe", "stripe hosted", "localstripe", "paymongo"])
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    with adapter_called(request.param) as adapter:
        yield adapter


@pytest.fixture
def charge() -> Charge:
    """Another one for each test: what a gateway was asked once, it remembers."""
    number = next(_ids)
    return Charge(
        payment_id=number, consultation_id=number + 1000, amount_minor=500_050, currency="PHP", payment_method="gcash"
    )


def opened(adapter: Adapter, charge: Charge) -> CheckoutSession:
    session = adapter.gateway.open_session(session_request(charge))
    assert isinstance(session, CheckoutSession)
    return session


def transaction_of(adapter: Adapter, charge: Charge, session: CheckoutSession) -> str:
    """The transaction by which a session was paid, which need not be called as the session is."""
    if not adapter.judges:
        return session.reference
    found = adapter.gateway.look_up_session(charge, session.reference)
    assert isinstance(found, CheckoutSession)
    assert found.status == SessionStatus.SUCCEEDED
    assert found.money.transaction_id is not None
    return found.money.transaction_id


def paid(adapter: Adapter, charge: Charge) -> str:
    """A session that the customer has paid: the transaction's id."""
    session = opened(adapter, charge)
    adapter.pay(session.reference)
    transaction_id = transaction_of(adapter, charge, session)
    found = adapter.gateway.look_up(charge, transaction_id)
    assert isinstance(found, CheckoutSession)
    assert verify(charge, found) == Approved(transaction_id)
    return transaction_id


def order_of(charge: Charge, transaction_id: str, amount_minor: int = 200_025) -> GatewayRefundRequest:
    return GatewayRefundRequest(
        refund_id=next(_ids),
        payment_id=charge.payment_id,
        transaction_id=transaction_id,
        amount_minor=amount_minor,
        currency=charge.currency,
    )


def test_an_opened_session_says_how_to_pay_and_what_for(adapter: Adapter, charge: Charge) -> None:
    session = opened(adapter, charge)

    assert session.status == SessionStatus.OPEN
    assert 0 < len(session.reference) <= 255
    # One thing to pay by, as the capabilities say.
    given = {
        CheckoutKind.REDIRECT: session.redirect_url,
        CheckoutKind.CLIENT_SECRET: session.client_secret,
        CheckoutKind.INSTRUCTIONS: session.instructions,
    }
    assert [kind for kind, value in given.items() if value is not None] == [adapter.gateway.capabilities.checkout]
    assert session.money.mismatch_reason(charge) is None or adapter.judges  # nothing has come to Stripe yet
    assert (session.money.payment_id, session.money.consultation_id) == (charge.payment_id, charge.consultation_id)


def test_the_secret_does_not_show_where_a_session_is_printed(adapter: Adapter, charge: Charge) -> None:
    session = opened(adapter, charge)

    assert "secret" not in repr(session)
    assert session.client_secret is None or session.client_secret not in str(session)
    assert session.redirect_url is None or session.redirect_url not in str(session)


def test_what_is_not_paid_is_not_verified(adapter: Adapter, charge: Charge) -> None:
    found = adapter.gateway.open_session(session_request(charge))

    assert isinstance(found, CheckoutSession)
    assert isinstance(verify(charge, found), Declined)


def test_what_is_paid_is_verified_and_names_its_transaction(adapter: Adapter, charge: Charge) -> None:
    session = opened(adapter, charge)
    adapter.pay(session.reference)

    transaction_id = transaction_of(adapter, charge, session)
    found = adapter.gateway.look_up(charge, transaction_id)

    assert isinstance(found, CheckoutSession)
    assert found.status == SessionStatus.SUCCEEDED
    assert found.money.amount_minor == charge.amount_minor
    assert verify(charge, found) == Approved(transaction_id)


@pytest.mark.parametrize(
    "other", [{"payment_id": 9_999}, {"consultation_id": 9_999}, {"amount_minor": 500_049}, {"currency": "USD"}]
)
def test_what_is_paid_pays_no_other_bill(adapter: Adapter, charge: Charge, other: dict[str, int]) -> None:
    found = adapter.gateway.look_up(charge, paid(adapter, charge))

    assert isinstance(found, CheckoutSession)
    verdict = verify(replace(charge, **other), found)  # type: ignore[arg-type]  # one field of its own type
    assert isinstance(verdict, Declined)
    assert verdict.reason


def test_a_transaction_that_nobody_made_pays_nothing_where_somebody_knows(adapter: Adapter, charge: Charge) -> None:
    found = adapter.gateway.look_up(charge, "pi_nobody_made_this")

    if adapter.judges:
        assert isinstance(found, Declined)
    else:
        assert isinstance(found, CheckoutSession)
        assert verify(charge, found) == Approved("pi_nobody_made_this")


def test_a_cancelled_session_stays_so_however_often_it_is_cancelled(adapter: Adapter, charge: Charge) -> None:
    session = opened(adapter, charge)

    for _ in range(2):
        cancelled = adapter.gateway.cancel_session(charge, session.reference)
        assert isinstance(cancelled, CheckoutSession)
        assert cancelled.reference == session.reference
        assert cancelled.status in (SessionStatus.CANCELLED, SessionStatus.EXPIRED)
        assert adapter.gateway.capabilities.ends_sessions
        assert isinstance(verify(charge, cancelled), Declined)


def test_a_paid_session_cannot_be_cancelled_where_somebody_knows(adapter: Adapter, charge: Charge) -> None:
    session = opened(adapter, charge)
    adapter.pay(session.reference)
    transaction_id = transaction_of(adapter, charge, session)

    found = adapter.gateway.cancel_session(charge, session.reference)

    assert isinstance(found, CheckoutSession)
    if adapter.judges:
        assert verify(charge, found) == Approved(transaction_id)


def test_a_session_that_nobody_opened_is_not_there_to_be_cancelled(adapter: Adapter, charge: Charge) -> None:
    kind = "cs" if adapter.gateway.capabilities.checkout is CheckoutKind.REDIRECT else "pi"
    found = adapter.gateway.cancel_session(charge, f"{kind}_nobody_opened_this")

    assert isinstance(found, Declined if adapter.judges else CheckoutSession)


def test_a_refund_is_found_under_the_name_it_was_made_by(adapter: Adapter, charge: Charge) -> None:
    order = order_of(charge, paid(adapter, charge))

    made = adapter.gateway.refund(order)

    assert isinstance(made, Approved)
    assert made.settled
    assert 0 < len(made.reference) <= 255
    assert adapter.gateway.look_up_refund(order) == made
    assert adapter.gateway.look_up_refund(replace(order, reference=made.reference)) == made


def test_a_refund_that_was_not_made_is_not_found_where_somebody_knows(adapter: Adapter, charge: Charge) -> None:
    transaction_id = paid(adapter, charge)
    # Another one of the same payment, of the same amount, is not this one.
    assert isinstance(adapter.gateway.refund(order_of(charge, transaction_id)), Approved)

    found = adapter.gateway.look_up_refund(order_of(charge, transaction_id))

    if adapter.judges:
        assert found is None
    else:
        assert isinstance(found, Approved)


def test_parts_of_a_payment_are_refunds_of_their_own(adapter: Adapter, charge: Charge) -> None:
    transaction_id = paid(adapter, charge)
    orders = [order_of(charge, transaction_id, amount) for amount in (200_000, 200_000, 100_050)]

    made = [adapter.gateway.refund(order) for order in orders]

    assert len({outcome.reference for outcome in made if isinstance(outcome, Approved)}) == 3
    assert [adapter.gateway.look_up_refund(order) for order in orders] == made


def test_a_refund_of_a_transaction_that_nobody_made_is_declined_where_somebody_knows(
    adapter: Adapter, charge: Charge
) -> None:
    outcome = adapter.gateway.refund(order_of(charge, "pi_nobody_made_this"))

    assert isinstance(outcome, Declined if adapter.judges else Approved)


@pytest.fixture(scope="module", params=["sandbox", "manual", "stripe", "stripe hosted", "paymongo with keys"])
def remembering(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    """All but localstripe, which ignores gateway keys, as PayMongo may."""
    with adapter_called(request.param) as adapter:
        yield adapter


def test_a_session_is_opened_once_however_often_it_is_asked_for(remembering: Adapter, charge: Charge) -> None:
    request = session_request(charge)
    assert remembering.gateway.open_session(request) == remembering.gateway.open_session(request)


def test_a_refund_is_made_once_however_often_it_is_asked_for(remembering: Adapter, charge: Charge) -> None:
    order = order_of(charge, paid(remembering, charge))

    assert remembering.gateway.refund(order) == remembering.gateway.refund(order)


def test_whoever_knows_of_money_lists_it_once_and_finds_it_by_the_listed_name(
    remembering: Adapter, charge: Charge
) -> None:
    gateway = remembering.gateway
    assert isinstance(gateway, PaymentLists) == remembering.judges
    if not isinstance(gateway, PaymentLists):
        return
    since, until = clock.now() - timedelta(minutes=5), clock.now() + timedelta(minutes=5)
    order = order_of(charge, paid(remembering, charge))
    made = gateway.refund(order)
    assert isinstance(made, Approved)
    opened(remembering, replace(charge, payment_id=next(_ids)))  # nobody pays it

    payments = [each for each in gateway.list_payments(since, until) if each.reference == order.transaction_id]
    refunds = [each for each in gateway.list_refunds(since, until) if each.reference == made.reference]

    assert [gateway.find_listed_payment(order.transaction_id)] == payments
    assert [(each.is_paid, each.money.mismatch_reason(charge)) for each in payments] == [(True, None)]
    assert [gateway.find_listed_refund(made.reference)] == refunds
    assert [(each.amount_minor, each.refund_id, each.outcome) for each in refunds] == [
        (order.amount_minor, order.refund_id, made)
    ]
    long_ago = since - timedelta(days=1)
    assert [*gateway.list_payments(long_ago, since), *gateway.list_refunds(long_ago, since)] == []
    nobody = order.transaction_id[:-6] + "zzzzzz"
    assert (gateway.find_listed_payment(nobody), gateway.find_listed_refund("re_nobody")) == (None, None)
