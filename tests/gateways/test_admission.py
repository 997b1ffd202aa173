"""A process's places for calls to gateways, and what a gateway's breaker takes for silence."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from config import WORKER_THREADS
from payments_app.errors import GatewayBusy, GatewayUnavailable
from payments_app.gateways.admission import OPENS_AFTER, Admission, Places
from payments_app.gateways.base import Charge, Declined, Gateway, OutcomeUnknown
from payments_app.gateways.paymongo.client import PayMongoGateway
from payments_app.gateways.registry import PLACES
from payments_app.gateways.stripe.client import StripeGateway
from tests.support.admissions import admission_to
from tests.support.fake_gateway import FakeGateway
from tests.support.paymongo_apps import fake_paymongo
from tests.support.stripe_apps import fake_stripe

CHARGE = Charge(payment_id=1, consultation_id=5, amount_minor=500_000, currency="PHP", payment_method="gcash")


def taken(places: Places, *gateways: str) -> list[bool]:
    return [places.take(gateway) for gateway in gateways]


def take_place(admission: Admission) -> None:
    with admission.place():
        pass


def test_half_of_a_workers_threads_are_enough_for_gateways() -> None:
    assert (PLACES, taken(Places(PLACES), *["stripe"] * 5)) == (WORKER_THREADS // 2, [True] * 4 + [False])


def test_a_gateway_leaves_a_place_to_each_other_one() -> None:
    places = Places(4, gateways=2)

    assert taken(places, *["stripe"] * 4) == [True, True, True, False]
    assert taken(places, "paymongo", "paymongo") == [True, False]
    places.give_back("stripe")
    assert taken(places, "paymongo", "paymongo") == [True, False]


def test_a_request_has_one_place_for_all_its_calls() -> None:
    admission = Admission("stripe", Places(1))

    with admission.place(), admission.call():
        take_place(admission)
        with ThreadPoolExecutor(1) as other, pytest.raises(GatewayBusy):
            other.submit(take_place, admission).result()

    take_place(admission)  # it was given back


def test_a_place_that_was_taken_in_vain_is_given_back() -> None:
    admission = Admission("stripe", Places(1))
    with pytest.raises(ZeroDivisionError), admission.place():
        raise ZeroDivisionError

    take_place(admission)


@contextmanager
def stripe_and_fake(admission: Admission) -> Iterator[tuple[Gateway, FakeGateway]]:
    with fake_stripe() as fake:
        # In so short a lease the SDK makes a single attempt.
        yield (
            StripeGateway(fake.api_key, api_base=fake.url, timeout_seconds=2, lease_seconds=3, admission=admission),
            fake,
        )


@contextmanager
def paymongo_and_fake(admission: Admission) -> Iterator[tuple[Gateway, FakeGateway]]:
    with fake_paymongo() as fake:
        gateway = PayMongoGateway(
            fake.api_key, api_base=fake.api_base, timeout_seconds=1, lease_seconds=60, admission=admission
        )
        yield gateway, fake


@pytest.fixture(params=[stripe_and_fake, paymongo_and_fake])
def remote(request: pytest.FixtureRequest) -> Iterator[tuple[Gateway, FakeGateway, Admission]]:
    admission = admission_to("tried")
    make: Callable[[Admission], Any] = request.param
    with make(admission) as (gateway, fake):
        yield gateway, fake, admission


def asked(gateway: Gateway) -> Any:
    return gateway.look_up(CHARGE, "pi_1" if isinstance(gateway, StripeGateway) else "pay_1")


@pytest.mark.parametrize("mode", ["drop", "late", "hang_before"])
def test_calls_without_an_answer_stop_the_calls_after_them(
    remote: tuple[Gateway, FakeGateway, Admission], mode: Any
) -> None:
    gateway, fake, admission = remote
    fake.misbehave(mode, method="GET", path="/v1", times=None)

    with ThreadPoolExecutor(OPENS_AFTER) as at_once:
        outcomes = list(at_once.map(asked, [gateway] * OPENS_AFTER))

    assert all(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)
    assert admission.is_silent
    with pytest.raises(GatewayUnavailable):
        asked(gateway)
    assert fake.count("GET", "/v1") == OPENS_AFTER


def test_an_answer_of_any_kind_shows_that_it_speaks(remote: tuple[Gateway, FakeGateway, Admission]) -> None:
    gateway, fake, admission = remote
    for mode in ("error_before", "refuse"):
        fake.misbehave(mode, method="GET", path="/v1", times=OPENS_AFTER)
        for _ in range(OPENS_AFTER):
            assert isinstance(asked(gateway), OutcomeUnknown | Declined)
    fake.behave()
    assert isinstance(asked(gateway), Declined)  # it knows no such payment

    assert not admission.is_silent


def test_it_is_tried_again_by_itself(remote: tuple[Gateway, FakeGateway, Admission]) -> None:
    gateway, fake, admission = remote
    admission._breaker._cool_down_seconds = 0
    fake.misbehave("drop", method="GET", path="/v1", times=OPENS_AFTER + 1)
    for _ in range(OPENS_AFTER):
        asked(gateway)
    assert admission.is_silent

    assert isinstance(asked(gateway), OutcomeUnknown)  # a trial, in vain
    assert admission.is_silent
    assert isinstance(asked(gateway), Declined)

    assert not admission.is_silent
