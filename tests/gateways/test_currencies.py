"""A currency is only taken if everybody who counts money in it counts as we do: in hundredths."""

import re
from collections.abc import Iterator

import pytest
from babel.numbers import get_currency_precision, list_currencies

from config import CURRENCIES_WITHOUT_HUNDREDTHS, ConfigError, Settings, currencies_in_use
from payments_app.gateways.base import Charge, CheckoutSession, Declined
from payments_app.gateways.manual import ManualGateway
from payments_app.gateways.sandbox import SandboxGateway
from tests.gateways.test_contract import stripe_at
from tests.support.apps import app_with
from tests.support.fake_stripe import FakeStripe
from tests.support.session_requests import session_request
from tests.support.stripe_apps import fake_stripe

# As https://docs.stripe.com/currencies lists them, in November 2026.
STRIPE_WITHOUT_DECIMALS = [
    "BIF",
    "CLP",
    "DJF",
    "GNF",
    "JPY",
    "KMF",
    "KRW",
    "MGA",
    "PYG",
    "RWF",
    "UGX",
    "VND",
    "VUV",
    "XAF",
    "XOF",
    "XPF",
]
STRIPE_WITH_THREE_DECIMALS = ["BHD", "JOD", "KWD", "OMR", "TND"]

# CLDR shows these without decimals because nobody uses them; in ISO 4217, and in amounts for machines, they have two.
HUNDREDTHS_OUT_OF_USE = {"AFN", "ALL", "IRR", "KPW", "LAK", "LBP", "MGA", "MMK", "RSD", "SOS", "SYP", "YER"}


def starts_with(currency: str, **more: str) -> bool:
    try:
        Settings.from_environment({"PAYMENT_CURRENCY": currency, **more})
    except ConfigError as refusal:
        assert re.fullmatch(rf"PAYMENT_CURRENCY {currency} .*", str(refusal)), refusal  # noqa: PT017  # one line
        return False
    return True


def test_every_code_that_cldr_knows_is_judged_by_how_it_is_counted() -> None:
    known = list_currencies()
    assert len(known) > 300

    for code in known:
        has_hundredths = get_currency_precision(code) == 2 or code in HUNDREDTHS_OUT_OF_USE
        assert starts_with(code) == (code in currencies_in_use() and has_hundredths), code


def test_the_codes_that_are_refused_are_currencies() -> None:
    assert currencies_in_use() >= CURRENCIES_WITHOUT_HUNDREDTHS
    assert not CURRENCIES_WITHOUT_HUNDREDTHS & HUNDREDTHS_OUT_OF_USE


@pytest.mark.parametrize("code", ["OMN", "AAA", "ZZZ"])
def test_a_code_that_nobody_gave_to_a_currency_is_refused(code: str) -> None:
    assert not starts_with(code)


@pytest.mark.parametrize("code", ["DEM", "XAU", "XTS", "XXX", "CLF", "CHW", "USN"])
def test_what_nobody_can_pay_with_is_refused(code: str) -> None:
    """The past, gold, codes for tests, and units that only contracts are written in."""
    assert not starts_with(code)


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeStripe]:
    with fake_stripe() as fake:
        yield fake


def test_stripe_counts_as_its_documentation_lists(fake: FakeStripe) -> None:
    stripe = stripe_at(fake)

    for code in list_currencies():
        expected = 0 if code in STRIPE_WITHOUT_DECIMALS else 3 if code in STRIPE_WITH_THREE_DECIMALS else 2
        assert stripe.minor_digits(code) == expected, code


def test_nobody_is_billed_in_a_currency_that_stripe_counts_otherwise(fake: FakeStripe) -> None:
    for code in currencies_in_use():
        charge = Charge(payment_id=1, consultation_id=2, amount_minor=100_000, currency=code, payment_method="stripe")
        opened = stripe_at(fake).open_session(session_request(charge))
        if code in STRIPE_WITHOUT_DECIMALS + STRIPE_WITH_THREE_DECIMALS:
            assert isinstance(opened, Declined), code
        else:
            assert isinstance(opened, CheckoutSession), code
        fake.reset()


def test_people_and_the_sandbox_count_as_we_do() -> None:
    for gateway in (SandboxGateway("a key for tests"), ManualGateway({})):
        assert {gateway.minor_digits(code) for code in currencies_in_use()} == {2}


def test_the_service_does_not_start_with_a_gateway_that_counts_otherwise() -> None:
    """ISO 4217 gives the ariary hundredths, and so do people; Stripe does not."""
    with app_with("sqlite:///unused.db", PAYMENT_CURRENCY="MGA"):
        pass

    refused = pytest.raises(ConfigError, match=r"^PAYMENT_CURRENCY MGA: stripe does not count it in hundredths[^\n]*$")
    with refused, app_with("sqlite:///unused.db", PAYMENT_CURRENCY="MGA", STRIPE_API_KEY="sk_test_1"):
        pass
