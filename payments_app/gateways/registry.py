"""The payment methods and gateways that the settings allow."""

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
    """An available payment method, and its gateway. A payment keeps its gateway forever."""

    code: str
    name: str
    gateway: GatewayName


_MANUAL_METHODS = (
    PaymentMethod("gcash", N_("GCash"), GatewayName.MANUAL),
    PaymentMethod("bank_transfer", N_("Bank transfer"), GatewayName.MANUAL),
    PaymentMethod("e_wallet", N_("E-wallet"), GatewayName.MANUAL),
)


def init_app(app: Flask) -> None:
    """Set up the gateways that the settings allow; without a call to any of them.

    Raises:
        ConfigError: a gateway does not count ``PAYMENT_CURRENCY`` in hundredths.
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
        GatewayUnavailable: the settings no longer allow it (503); its payments have to wait.
    """
    gateways: dict[str, Gateway] = current_app.extensions["gateways"]
    gateway = gateways.get(name)
    if gateway is None:
        raise GatewayUnavailable(f"The gateway {name} is not configured.")
    return gateway


def find_stripe() -> StripeGateway | None:
    """The Stripe gateway, if its API key is set."""
    gateway = current_app.extensions["gateways"].get(GatewayName.STRIPE)
    return gateway if isinstance(gateway, StripeGateway) else None


def payment_methods() -> Sequence[PaymentMethod]:
    """The available methods. Cards: by Stripe if its key is set, else by the sandbox if it is allowed, else none."""
    for gateway in (GatewayName.STRIPE, GatewayName.SANDBOX):
        if gateway in current_app.extensions["gateways"]:
            return PaymentMethod("stripe", N_("Card"), gateway), *_MANUAL_METHODS
    return _MANUAL_METHODS


def find_method(code: str) -> PaymentMethod | None:
    """The method of that code; None if it is not available."""
    return next((method for method in payment_methods() if method.code == code), None)
