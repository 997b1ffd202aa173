"""Money is exact: whatever comes in comes out, to the minor unit."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_app import money

AMOUNTS_MINOR = st.integers(min_value=0, max_value=10**14)


@given(AMOUNTS_MINOR)
def test_the_json_number_is_exact_to_the_minor_unit(amount_minor: int) -> None:
    written = json.dumps(money.to_json_number(amount_minor))

    assert Decimal(written) * 100 == amount_minor
    assert money.to_minor(Decimal(written)) == amount_minor


@given(AMOUNTS_MINOR)
def test_the_text_is_exact_to_the_minor_unit(amount_minor: int) -> None:
    assert money.to_minor(Decimal(money.to_text(amount_minor))) == amount_minor


@given(AMOUNTS_MINOR, st.integers(min_value=0, max_value=10_000))
def test_tax_is_rounded_half_up(amount_minor: int, rate_basis_points: int) -> None:
    exact = Decimal(amount_minor) * rate_basis_points / 10_000

    assert abs(money.tax_minor(amount_minor, rate_basis_points) - exact) <= Decimal("0.5")
    assert money.tax_minor(amount_minor, rate_basis_points) - exact != Decimal("-0.5")


@pytest.mark.parametrize("text", ["0.001", "1.005", "1e-999999", "1e999999", "Infinity", "NaN", "1." + "0" * 40 + "1"])
def test_what_is_no_amount_is_none(text: str) -> None:
    assert money.to_minor(Decimal(text)) is None


def test_twelve_percent_of_five_thousand_is_six_hundred() -> None:
    assert money.tax_minor(500_000, 1_200) == 60_000
