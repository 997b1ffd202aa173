"""Payment methods, the gateways that carry them, and which of both the settings allow."""

from collections.abc import Sequence
from dataclasses import dataclass

from flask import Flask, current_app

from config import MINOR_DIGITS, ConfigError, Settings
from payments_app.errors import GatewayUnavailable
from payments_app.gateways.base import Gateway, GatewayName
from payments_app.gateways.manual import ManualGateway
from payments_app.gateways.sandbox import SandboxGateway
from payments_app.gateways.stripe.client import StripeGateway
from payments_app.i18n.messages import N_


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """A way to pay that is on offer, and the gateway that a payment by it is tied to for good."""

    code: str
    name: str
    gateway: GatewayName


_MANUAL_METHODS = (
    PaymentMethod("gcash", N_("GCash"), GatewayName.MANUAL),
    PaymentMethod("bank_transfer", N_("Bank transfer"), GatewayName.MANUAL),
    PaymentMethod("e_wallet", N_("E-wallet"), GatewayName.MANUAL),
)


def init_app(app: Flask) -> None:
    """Set up the gateways of the settings; none of them is called before it is needed.

    Raises:
        ConfigError: a gateway counts amounts in ``PAYMENT_CURRENCY`` in another unit than hundredths.
    """
    settings: Settings = app.config["SETTINGS"]
    gateways: dict[str, Gateway] = {GatewayName.MANUAL: ManualGateway(settings.payment_instructions)}
    if settings.sandbox_offered:
        gateways[GatewayName.SANDBOX] = SandboxGateway()
    if settings.stripe_api_key is not None:
        gateways[GatewayName.STRIPE] = StripeGateway(
            settings.stripe_api_key,
            api_base=settings.stripe_api_base,
            timeout_seconds=settings.gateway_timeout_seconds,
            lease_seconds=settings.refund_lease_seconds,
        )
    currency = settings.payment_currency
    for name, gateway in gateways.items():
        if gateway.minor_digits(currency) != MINOR_DIGITS:
            raise ConfigError(
                f"PAYMENT_CURRENCY {currency}: {name} does not count it in hundredths, as this service does"
            )
    app.extensions["gateways"] = gateways


def find_gateway(name: str) -> Gateway:
    """The gateway of that name.

    Raises:
        GatewayUnavailable: the settings no longer allow it; whatever it carries has to wait (503).
    """
    gateways: dict[str, Gateway] = current_app.extensions["gateways"]
    gateway = gateways.get(name)
    if gateway is None:
        raise GatewayUnavailable(f"The gateway {name} is not configured.")
    return gateway


def find_stripe() -> StripeGateway | None:
    """The one gateway that is a machine somewhere else, where the settings have a key for it."""
    gateway = current_app.extensions["gateways"].get(GatewayName.STRIPE)
    return gateway if isinstance(gateway, StripeGateway) else None


def payment_methods() -> Sequence[PaymentMethod]:
    """The methods on offer: cards by Stripe where its key is set, else by the sandbox where that is allowed."""
    for carrier in (GatewayName.STRIPE, GatewayName.SANDBOX):
        if carrier in current_app.extensions["gateways"]:
            return PaymentMethod("stripe", N_("Card"), carrier), *_MANUAL_METHODS
    return _MANUAL_METHODS


def find_method(code: str) -> PaymentMethod | None:
    """The method of that code, where it is on offer."""
    return next((method for method in payment_methods() if method.code == code), None)
