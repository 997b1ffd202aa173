"""Payment methods and the gateways that carry them."""

from dataclasses import dataclass
from enum import StrEnum


class Gateway(StrEnum):
    """Who moves the money. ``sandbox``: nobody, it accepts anything. ``manual``: people, and staff see it arrive."""

    SANDBOX = "sandbox"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """A way to pay that is on offer, and the gateway that a payment by it is tied to for good."""

    code: str
    name: str
    gateway: Gateway


_MANUAL_METHODS = (
    PaymentMethod("gcash", "GCash", Gateway.MANUAL),
    PaymentMethod("bank_transfer", "Bank transfer", Gateway.MANUAL),
    PaymentMethod("e_wallet", "E-wallet", Gateway.MANUAL),
)
_SANDBOX_METHODS = (PaymentMethod("stripe", "Card", Gateway.SANDBOX),)


def payment_methods(*, sandbox_offered: bool) -> tuple[PaymentMethod, ...]:
    """The methods on offer; the sandbox, which takes no money, is not for production."""
    return (*(_SANDBOX_METHODS if sandbox_offered else ()), *_MANUAL_METHODS)


def find_method(code: str, *, sandbox_offered: bool) -> PaymentMethod | None:
    """The method of that code, where it is on offer."""
    return next((method for method in payment_methods(sandbox_offered=sandbox_offered) if method.code == code), None)
