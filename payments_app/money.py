"""Money is whole minor units (hundredths); rates are whole basis points (1/100 of a percent). Never a float."""

import re
from decimal import Decimal

from config import BASIS_POINTS_PER_ONE, MINOR_PER_MAJOR

# Without signs, exponents, blanks, underscores and digits of other scripts, all of which ``Decimal`` would accept.
PLAIN_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,15})(\.[0-9]{1,2})?")

HUNDREDTH = Decimal("0.01")
# Major units. More than every amount that the settings allow (config.AMOUNT_CEILING, 10^12).
TOO_LARGE = Decimal(10**16)


def tax_minor(taxable_minor: int, rate_basis_points: int) -> int:
    """The tax on an amount, rounded half up to the minor unit: 500,000 at 1,200 is 60,000."""
    return (taxable_minor * rate_basis_points + BASIS_POINTS_PER_ONE // 2) // BASIS_POINTS_PER_ONE


def included_tax_minor(amount_minor: int, rate_basis_points: int) -> int:
    """The tax that an amount contains, rounded half up to the minor unit: 112,000 at 1,200 contains 12,000."""
    return part_minor(amount_minor, part=rate_basis_points, of=BASIS_POINTS_PER_ONE + rate_basis_points)


def part_minor(amount_minor: int, *, part: int, of: int) -> int:
    """The ``part`` of an amount that is shared out ``of``, rounded half up; never more than the amount.

    Shared out of what is left each time, the parts add up: the last one takes the rest.
    """
    return min((2 * amount_minor * part + of) // (2 * of), amount_minor)


def to_minor(amount: Decimal) -> int | None:
    """Major units as minor units; None if the amount has more than two decimals, is not finite or is too large.

    The size is checked before any arithmetic: ``Decimal("1e999999")`` as an integer would fill the memory.
    """
    if not amount.is_finite() or not -TOO_LARGE < amount < TOO_LARGE:
        return None
    hundredths = amount.quantize(HUNDREDTH)
    # Decimals compare exactly, whatever the context's precision: a non-zero hundredth decimal still counts.
    return int(hundredths.scaleb(2)) if hundredths == amount else None


def from_text(text: str) -> int | None:
    """A plain decimal in major units, such as ``5000`` or ``5000.50``, as minor units; None if it is not one."""
    return to_minor(Decimal(text)) if PLAIN_DECIMAL.fullmatch(text) else None


def to_text(amount_minor: int) -> str:
    """Minor units as a plain text of major units with two decimals: 500050 is ``5000.50``."""
    sign = "-" if amount_minor < 0 else ""
    major, minor = divmod(abs(amount_minor), MINOR_PER_MAJOR)
    return f"{sign}{major}.{minor:02d}"


def to_major(amount_minor: int) -> Decimal:
    """Minor units as major units with two decimals, for texts that format it for the reader's language."""
    return Decimal(amount_minor).scaleb(-2)


def to_json_number(amount_minor: int) -> int | float:
    """Minor units as the JSON number of major units that clients see, exact to the minor unit.

    Whole amounts are ints. Others are floats: JSON writes a float as the shortest text that reads back as the same
    double. Below 10^13 major units (15 significant digits) that is exactly the two decimals. The result is never used
    in calculations.
    """
    major, minor = divmod(amount_minor, MINOR_PER_MAJOR)
    return major if minor == 0 else float(to_text(amount_minor))
