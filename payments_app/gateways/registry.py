"""The payment methods and gateways that the settings allow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flask import Flask, current_app

from config import MINOR_DIGITS, WORKER_THREADS, ConfigError, Settings
from payments_app.errors import GatewayUnavailable
from payments_app.gateways.admission import Admission, Places
from payments_app.gateways.base import EventSource, Gateway, GatewayName
from payments_app.gateways.capabilities import CheckoutKind
from payments_app.gateways.manual import ManualGateway
from payments_app.gateways.paymongo.client import PayMongoGateway
from payments_app.gateways.sandbox import SandboxGateway
from payments_app.i18n.messages import N_

# The gateways that send webhooks, configured or not: each has an address of its own, ``/api/v1/webhooks/<name>``.
SENDERS_OF_WEBHOOKS = (GatewayName.STRIPE, GatewayName.PAYMONGO)

# Requests of one process that may be in calls to gateways at the same time: a mute gateway leaves the other half of the
# threads to everything else.
PLACES = WORKER_THREADS // 2

# What patients read of each method.
_METHOD_NAMES = {
    "stripe": N_("Card"),
    "gcash": N_("GCash"),
    "bank_transfer": N_("Bank transfer"),
    "e_wallet": N_("E-wallet"),
}

# Which gateways carry a method if PAYMENT_GATEWAYS does not say: the first of them that is configured. If none of them
# is, the method is not on offer.
_DEFAULT_CARRIERS: Mapping[str, Sequence[GatewayName]] = {
    "stripe": (GatewayName.STRIPE, GatewayName.SANDBOX),
    "gcash": (GatewayName.PAYMONGO, GatewayName.MANUAL),
    "bank_transfer": (GatewayName.MANUAL,),
    "e_wallet": (GatewayName.PAYMONGO, GatewayName.MANUAL),
}


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """An available payment method, and its gateway. A payment keeps its gateway forever."""

    code: str
    name: str
    gateway: str
    # How it is paid at present: the kind of its gateway's checkout.
    checkout: str


def init_app(app: Flask) -> None:
    """Set up the gateways that the settings allow; without a call to any of them.

    Raises:
        ConfigError: a gateway cannot carry a method that ``PAYMENT_GATEWAYS`` gives it, or ``PAYMENT_CURRENCY``.
    """
    settings: Settings = app.config["SETTINGS"]
    admissions = _admissions(settings)
    gateways = dict(_configured(settings, admissions))
    methods = tuple(_methods(gateways, settings))
    _require_currency(gateways, methods, settings.payment_currency)
    _require_way_back(gateways, settings)
    app.extensions["gateways"] = gateways
    app.extensions["gateway_admissions"] = admissions
    app.extensions["payment_methods"] = methods


def _admissions(settings: Settings) -> Mapping[str, Admission]:
    """Of each gateway that is called over the network, by its name."""
    keys = {GatewayName.STRIPE: settings.stripe_api_key, GatewayName.PAYMONGO: settings.paymongo_api_key}
    names = [str(name) for name, key in keys.items() if key is not None]
    places = Places(PLACES, gateways=len(names))
    return {name: Admission(name, places) for name in names}


def _configured(settings: Settings, admissions: Mapping[str, Admission]) -> Iterator[tuple[str, Gateway]]:
    yield GatewayName.MANUAL, ManualGateway(settings.payment_instructions)
    if settings.sandbox_offered:
        yield GatewayName.SANDBOX, SandboxGateway(settings.secret_key)
    if settings.stripe_api_key is not None:
        # Only here: Stripe's library would take a tenth of the time in which a service or a command without it starts.
        from payments_app.gateways.stripe.client import StripeGateway  # noqa: PLC0415

        yield (
            GatewayName.STRIPE,
            StripeGateway(
                settings.stripe_api_key,
                admission=admissions[GatewayName.STRIPE],
                api_base=settings.stripe_api_base,
                timeout_seconds=settings.gateway_timeout_seconds,
                lease_seconds=settings.refund_lease_seconds,
                webhook_secrets=settings.stripe_webhook_secrets,
                is_hosted=settings.stripe_checkout == "hosted",
            ),
        )
    if settings.paymongo_api_key is not None:
        yield (
            GatewayName.PAYMONGO,
            PayMongoGateway(
                settings.paymongo_api_key,
                admission=admissions[GatewayName.PAYMONGO],
                api_base=settings.paymongo_api_base,
                timeout_seconds=settings.gateway_timeout_seconds,
                lease_seconds=settings.refund_lease_seconds,
                webhook_secrets=settings.paymongo_webhook_secrets,
            ),
        )


def _methods(gateways: Mapping[str, Gateway], settings: Settings) -> Iterator[PaymentMethod]:
    for code, name in _METHOD_NAMES.items():
        wanted = settings.payment_gateways.get(code)
        if wanted is not None:
            _require_carrier(gateways, code, wanted)
            carrier: str | None = wanted
        else:
            carrier = next((each.value for each in _DEFAULT_CARRIERS[code] if each in gateways), None)
        if carrier is not None:
            yield PaymentMethod(code, name, carrier, gateways[carrier].capabilities.checkout.value)


def _require_carrier(gateways: Mapping[str, Gateway], code: str, wanted: str) -> None:
    if wanted not in gateways:
        raise ConfigError(f"PAYMENT_GATEWAYS {code}:{wanted}: the gateway {wanted} is not configured")
    if code not in gateways[wanted].capabilities.methods:
        raise ConfigError(f"PAYMENT_GATEWAYS {code}:{wanted}: {wanted} does not carry this method")


def _require_currency(gateways: Mapping[str, Gateway], methods: Sequence[PaymentMethod], currency: str) -> None:
    for name, gateway in gateways.items():
        if gateway.minor_digits(currency) != MINOR_DIGITS:
            raise ConfigError(
                f"PAYMENT_CURRENCY {currency}: {name} does not count it in hundredths, as this service does"
            )
    for method in methods:
        currencies = gateways[method.gateway].capabilities.currencies
        if currencies is not None and currency not in currencies:
            raise ConfigError(
                f"PAYMENT_CURRENCY {currency}: {method.gateway}, which carries {method.code}, takes"
                f" {', '.join(sorted(currencies))} only"
            )


def _require_way_back(gateways: Mapping[str, Gateway], settings: Settings) -> None:
    """In production a request may call us by any name, so its address is none that patients are sent back to."""
    if not settings.is_production or settings.public_url is not None:
        return
    for name, gateway in gateways.items():
        if gateway.capabilities.checkout is CheckoutKind.REDIRECT and gateway.capabilities.moves_money:
            raise ConfigError(f"PUBLIC_URL is required in production: {name} leads patients back to it")


def configured_gateways() -> Mapping[str, Gateway]:
    """All gateways of the settings, by name."""
    gateways: Mapping[str, Gateway] = current_app.extensions["gateways"]
    return gateways


def find_gateway(name: str) -> Gateway:
    """The gateway of that name.

    Raises:
        GatewayUnavailable: the settings no longer allow it (503); its payments have to wait.
    """
    gateway = configured_gateways().get(name)
    if gateway is None:
        raise GatewayUnavailable(f"The gateway {name} is not configured.")
    return gateway


def silent_gateways() -> Mapping[str, bool]:
    """Of each gateway that is called over the network: whether this process does not call it, because it is silent."""
    admissions: Mapping[str, Admission] = current_app.extensions["gateway_admissions"]
    return {name: admission.is_silent for name, admission in admissions.items()}


def can_be_asked(name: str) -> bool:
    """Whether the gateway knows what was paid. A gateway that is not configured any more counts as one that does."""
    gateway = configured_gateways().get(name)
    return gateway is None or gateway.capabilities.can_be_asked


def find_event_source(name: str) -> EventSource | None:
    """The gateway of that name, if it is configured and sends webhooks."""
    gateway = configured_gateways().get(name)
    return gateway if isinstance(gateway, EventSource) else None


def payment_methods() -> Sequence[PaymentMethod]:
    """The methods on offer, each with the gateway that carries it."""
    methods: Sequence[PaymentMethod] = current_app.extensions["payment_methods"]
    return methods


def find_method(code: str) -> PaymentMethod | None:
    """The method of that code; None if it is not available."""
    return next((method for method in payment_methods() if method.code == code), None)
