"""All settings: read from the environment once, and checked at start.

A bad value stops the start with one line that names the setting. ``docs/settings.md`` lists the same names; a test
compares the two.
"""

import os
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel.core import get_global
from babel.numbers import get_territory_currencies
from dotenv import load_dotenv
from redis.connection import parse_url
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

# Threads of a worker process, each of which serves one request: eight keep two cores busy, because a request mostly
# waits for the database. Each has a database connection, and half of them may wait for gateways.
WORKER_THREADS = 8

# Amounts are stored in hundredths of the currency unit, rates in hundredths of a percent.
MINOR_DIGITS = 2
MINOR_PER_MAJOR = 10**MINOR_DIGITS
BASIS_POINTS_PER_ONE = 10_000

# Below this many bytes an HMAC-SHA-256 key is weaker than the hash (RFC 7518, section 3.2).
SECRET_MIN_BYTES = 32

# A random secret has far more different characters; one repeated key or one repeated word has fewer.
SECRET_MIN_DIFFERENT_CHARACTERS = 8

# Placeholders that examples show instead of a secret; compared without case, dashes and dots.
PLACEHOLDERS = ("changeme", "replaceme", "example", "password", "secret")

# How much of a refused value the error shows: enough to find it.
SHOWN_CHARACTERS = 20

# Amounts are stored in hundredths. ISO 4217 gives these currencies another minor unit, so amounts would be wrong by a
# factor of 10 to 100. (CLDR also displays some currencies without their hundredths, such as RSD. That is a display
# habit: they still have hundredths, so they are not in this list.)
CURRENCIES_WITHOUT_HUNDREDTHS = frozenset(
    [
        "BHD",
        "BIF",
        "CLP",
        "DJF",
        "GNF",
        "IQD",
        "ISK",
        "JOD",
        "JPY",
        "KMF",
        "KRW",
        "KWD",
        "LYD",
        "OMR",
        "PYG",
        "RWF",
        "TND",
        "UGX",
        "VND",
        "VUV",
        "XAF",
        "XOF",
        "XPF",
    ]
)

# The highest TCP port.
LAST_PORT = 65_535

# Ports that an origin does not name.
DEFAULT_PORTS = {"https": 443, "http": 80}

# The names of this machine by which a browser trusts plain HTTP.
LOOPBACK_HOSTS = frozenset(["127.0.0.1", "::1", "localhost"])

# A host's name in ASCII, or an address; urlsplit takes anything.
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")

# 10^12 major units. Up to this amount, a JSON number with two decimals is exact in an IEEE double.
AMOUNT_CEILING = Decimal(10**12)

# Methods by which the patient sends the money by hand.
MANUAL_METHODS = ("gcash", "bank_transfer", "e_wallet")

# All methods that there are, by their codes, and the gateways that may carry them.
METHODS = ("stripe", *MANUAL_METHODS)
GATEWAYS = ("stripe", "paymongo", "manual", "sandbox")

DEVELOPMENT_SECRET = "for-development-only-never-for-real-money"  # noqa: S105  # nosec B105  # refused in production


# Passwords that software ships with and that attackers try first; compared without case, dashes and dots.
DEFAULT_PASSWORDS = frozenset(
    [
        "123456",
        "12345678",
        "123456789",
        "admin",
        "changeit",
        "changeme",
        "default",
        "example",
        "foobared",
        "guest",
        "letmein",
        "pass",
        "password",
        "payment",
        "payments",
        "postgres",
        "postgresql",
        "qwerty",
        "redis",
        "root",
        "secret",
        "test",
        "user",
    ]
)


class ConfigError(Exception):
    """A missing, malformed or unsafe setting; the service does not start. The text is one line that names it."""


def read_env_file() -> None:
    """Load ``.env`` from the folder of this file, unless the environment has ``APP_ENV=production``.

    In production all settings come from the environment: a developer's leftover file must not fill gaps.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    if os.environ.get("APP_ENV", "").strip() == "production":
        return
    file = Path(__file__).with_name(".env")
    try:
        load_dotenv(file)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None


def currencies_in_use() -> frozenset[str]:
    """ISO 4217 codes of the currencies that are legal tender somewhere today, according to CLDR.

    Without funds, metals, test codes and past currencies, which have ISO 4217 codes too.
    """
    territories = get_global("territory_currencies")
    return frozenset(code for territory in territories for code in get_territory_currencies(territory))


def origin_of(url: str) -> str | None:
    """Scheme, host and port of an http or https URL (RFC 6454), the port only if it is not the scheme's own.

    None if the URL has no such origin, or names a user, whom a browser would not send.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not host or "@" in parts.netloc or not _HOST.fullmatch(host):
        return None
    named = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{named}" + ("" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}")


def is_safe_origin(origin: str, *, is_production: bool) -> bool:
    """Whether links may lead there: by https; outside production also by http to this machine."""
    parts = urlsplit(origin)
    return parts.scheme == "https" or (not is_production and parts.hostname in LOOPBACK_HOSTS)


def gunicorn_settings(
    environment: Mapping[str, str] | None = None,
) -> tuple[list[str], int, tuple[str, int] | None]:
    """The addresses gunicorn binds to, the number of worker processes, and host and port of the health listener.

    Raises:
        ConfigError: a value is malformed.
    """
    read = _Reader(os.environ if environment is None else environment)
    port = read.whole("PORT", 8000, at_least=1, at_most=LAST_PORT)
    bind = read.text("BIND", f"127.0.0.1:{port}").split(",")
    return bind, read.whole("WEB_CONCURRENCY", 2, at_least=1), read.host_and_port("HEALTH_BIND")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The checked settings. Amounts are in minor units (hundredths), durations in seconds, rates in basis points."""

    app_env: str
    secret_key: str
    jwt_secret_key: str
    database_url: str = field(repr=False)
    database_pooler: str
    transaction_attempts: int
    access_token_ttl_seconds: int
    payment_min_amount_minor: int
    payment_max_amount_minor: int
    payment_currency: str
    payment_tax_rate_basis_points: int
    payment_tax_basis: str
    idempotency_replay: str
    idempotency_cache_ttl_seconds: int
    idempotency_retention_seconds: int
    redis_url: str | None = field(repr=False)
    redis_timeout_ms: int
    payment_locking: str
    payment_lock_timeout_seconds: int
    payment_lock_retry_delay_ms: int
    payment_lock_max_attempts: int
    trusted_proxies: int
    log_level: str
    ratelimit_enabled: bool
    ratelimit_payments: str
    ratelimit_api_keys: str
    ratelimit_failed_logins: str
    ratelimit_failed_logins_per_address: str
    allow_sandbox_gateway: bool
    allow_sqlite: bool
    stripe_api_key: str | None = field(repr=False)
    stripe_webhook_secrets: tuple[str, ...] = field(repr=False)
    stripe_api_base: str
    stripe_checkout: str
    paymongo_api_key: str | None = field(repr=False)
    paymongo_webhook_secrets: tuple[str, ...] = field(repr=False)
    paymongo_api_base: str
    payment_gateways: Mapping[str, str]
    gateway_timeout_seconds: int
    refund_lease_seconds: int
    refund_repeat_window_seconds: int
    refund_approval_above_minor: int | None
    payment_pending_ttl_seconds: int
    payment_manual_ttl_seconds: int
    payment_instructions: Mapping[str, str]
    default_locale: str
    checkout_page: bool
    public_url: str | None
    webhook_allow_private: bool
    return_url_origins: frozenset[str]
    clinic_timezone: ZoneInfo
    clinic_name: str | None
    clinic_address: str | None
    clinic_tax_number: str | None
    documents_accredited: bool

    @property
    def is_production(self) -> bool:
        return self.app_env == "production"

    @property
    def sandbox_offered(self) -> bool:
        return not self.is_production or self.allow_sandbox_gateway

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read and check every setting.

        Raises:
            ConfigError: a value is missing, malformed or unsafe for ``APP_ENV``.
        """
        environment = os.environ if environment is None else environment
        read = _Reader(environment)
        app_env = read.choice("APP_ENV", "development", "testing", "production")
        settings = cls(
            app_env=app_env,
            secret_key=read.secret("SECRET_KEY", app_env),
            jwt_secret_key=read.secret("JWT_SECRET_KEY", app_env),
            database_url=read.database_url("DATABASE_URL", "sqlite:///payments.db"),
            database_pooler=read.choice("DATABASE_POOLER", "none", "transaction"),
            # The winner of a race has committed, so the second attempt nearly always decides; the third is for heavy
            # contention. On a database whose transactions are serializable, conflicts are common.
            transaction_attempts=read.whole("TRANSACTION_ATTEMPTS", 3, at_least=2, at_most=20),
            access_token_ttl_seconds=read.whole("ACCESS_TOKEN_TTL", 3600, at_least=1),
            payment_min_amount_minor=read.amount_minor("PAYMENT_MIN_AMOUNT", "1000"),
            payment_max_amount_minor=read.amount_minor("PAYMENT_MAX_AMOUNT", "10000000"),
            payment_currency=read.currency("PAYMENT_CURRENCY", "PHP"),
            payment_tax_rate_basis_points=read.rate_basis_points("PAYMENT_TAX_RATE", "0.12"),
            payment_tax_basis=read.choice("PAYMENT_TAX_BASIS", "amount", "included"),
            idempotency_replay=read.choice("IDEMPOTENCY_REPLAY", "same", "conflict"),
            idempotency_cache_ttl_seconds=read.whole("IDEMPOTENCY_CACHE_TTL", 300, at_least=1),
            idempotency_retention_seconds=read.whole("IDEMPOTENCY_RETENTION", 86_400, at_least=1),
            redis_url=read.redis_url(),
            # On one network Redis responds within a millisecond; after 100 ms it is quicker to go on without it.
            # At most 5 s: a request may wait for two calls to Redis, and then still has to create the payment.
            redis_timeout_ms=read.whole("REDIS_TIMEOUT", 100, at_least=1, at_most=5_000),
            payment_locking=read.choice("PAYMENT_LOCKING", "optimistic", "pessimistic", "redis", "hybrid"),
            payment_lock_timeout_seconds=read.whole("PAYMENT_LOCK_TIMEOUT", 5, at_least=1),
            payment_lock_retry_delay_ms=read.whole("PAYMENT_LOCK_RETRY_DELAY", 100, at_least=1),
            payment_lock_max_attempts=read.whole("PAYMENT_LOCK_MAX_ATTEMPTS", 50, at_least=1),
            trusted_proxies=read.whole("TRUSTED_PROXIES", 0, at_least=0),
            log_level=read.choice("LOG_LEVEL", "INFO", "DEBUG", "WARNING", "ERROR"),
            ratelimit_enabled=read.flag("RATELIMIT_ENABLED", default=True),
            ratelimit_payments=read.rate("RATELIMIT_PAYMENTS", "10 per minute"),
            ratelimit_api_keys=read.rate("RATELIMIT_API_KEYS", "1000 per minute"),
            ratelimit_failed_logins=read.rate("RATELIMIT_FAILED_LOGINS", "5 per minute"),
            ratelimit_failed_logins_per_address=read.rate("RATELIMIT_FAILED_LOGINS_PER_ADDRESS", "50 per minute"),
            allow_sandbox_gateway=read.flag("ALLOW_SANDBOX_GATEWAY", default=False),
            allow_sqlite=read.flag("ALLOW_SQLITE", default=False),
            stripe_api_key=read.stripe_key("STRIPE_API_KEY"),
            stripe_webhook_secrets=read.tokens("STRIPE_WEBHOOK_SECRET"),
            stripe_api_base=read.api_base("STRIPE_API_BASE", "https://api.stripe.com", app_env),
            stripe_checkout=read.choice("STRIPE_CHECKOUT", "hosted", "elements"),
            paymongo_api_key=read.paymongo_key("PAYMONGO_API_KEY"),
            paymongo_webhook_secrets=read.tokens("PAYMONGO_WEBHOOK_SECRET"),
            paymongo_api_base=read.api_base("PAYMONGO_API_BASE", "https://api.paymongo.com/v1", app_env),
            payment_gateways=read.payment_gateways("PAYMENT_GATEWAYS"),
            gateway_timeout_seconds=read.whole("GATEWAY_TIMEOUT", 10, at_least=1),
            refund_lease_seconds=read.whole("REFUND_LEASE", 60, at_least=1),
            refund_repeat_window_seconds=read.whole("REFUND_REPEAT_WINDOW", 600, at_least=0),
            refund_approval_above_minor=read.limit_minor("REFUND_APPROVAL_ABOVE"),
            payment_pending_ttl_seconds=read.whole("PAYMENT_PENDING_TTL", 1800, at_least=1),
            payment_manual_ttl_seconds=read.whole("PAYMENT_MANUAL_TTL", 604_800, at_least=1),
            payment_instructions=read.payment_instructions("PAYMENT_INSTRUCTIONS"),
            default_locale=read.choice("DEFAULT_LOCALE", "en", "id"),
            checkout_page=read.flag("CHECKOUT_PAGE", default=app_env != "production"),
            public_url=read.public_url("PUBLIC_URL", app_env),
            webhook_allow_private=read.flag("WEBHOOK_ALLOW_PRIVATE", default=False),
            return_url_origins=read.origins("RETURN_URL_ORIGINS", app_env),
            clinic_timezone=read.timezone("CLINIC_TIMEZONE", "UTC"),
            clinic_name=read.printed("CLINIC_NAME", at_most=200),
            clinic_address=read.printed("CLINIC_ADDRESS", at_most=500),
            clinic_tax_number=read.printed("CLINIC_TAX_NUMBER", at_most=64),
            documents_accredited=read.flag("DOCUMENTS_ACCREDITED", default=False),
        )
        if settings.payment_min_amount_minor > settings.payment_max_amount_minor:
            raise ConfigError("PAYMENT_MIN_AMOUNT is greater than PAYMENT_MAX_AMOUNT")
        if settings.refund_lease_seconds <= settings.gateway_timeout_seconds:
            raise ConfigError(
                "REFUND_LEASE must be longer than GATEWAY_TIMEOUT: payments resume would overtake a live worker"
            )
        if settings.is_production:
            _refuse_unsafe_settings(settings, environment)
        return settings

    def flask_config(self) -> dict[str, Any]:
        """The same settings under the names that Flask and its extensions read."""
        return {
            "SETTINGS": self,
            "TESTING": self.app_env == "testing",
            "SECRET_KEY": self.secret_key,
            "JWT_SECRET_KEY": self.jwt_secret_key,
            "JWT_ACCESS_TOKEN_EXPIRES": self.access_token_ttl_seconds,
            "JWT_TOKEN_LOCATION": ["headers"],
            "JWT_ALGORITHM": "HS256",
            "JWT_COOKIE_CSRF_PROTECT": False,  # no cookies, so no claim about them in every token
            "SQLALCHEMY_DATABASE_URI": self.database_url,
            # The largest valid request is under 3 KiB; 64 KiB leaves room for the extra headers of multipart forms.
            # deploy/nginx/payments.conf has the same limit.
            "MAX_CONTENT_LENGTH": 64 * 1024,
        }


def _refuse_unsafe_settings(settings: Settings, environment: Mapping[str, str]) -> None:
    """Refuse settings that are fine for development but unsafe in production.

    Raises:
        ConfigError: production does not start with such a setting.
    """
    for name in ("FLASK_DEBUG", "DEBUG"):
        if environment.get(name, "").strip().lower() not in ("", "0", "false", "no"):  # as Flask reads it
            raise ConfigError(f"{name} is on: unset it in production, because its error pages show secrets")
    if "STRIPE_LOG" in environment:
        raise ConfigError("STRIPE_LOG is set: unset it in production, because Stripe's library then logs secrets")
    if settings.secret_key == settings.jwt_secret_key:
        raise ConfigError("JWT_SECRET_KEY must not be the same as SECRET_KEY in production")
    database = make_url(settings.database_url)
    if database.drivername == "sqlite" and not settings.allow_sqlite:
        raise ConfigError(
            "DATABASE_URL is SQLite, which serves one machine and few users: set ALLOW_SQLITE=1 to allow it"
        )
    users = {database.username, *database.normalized_query.get("user", ())}
    for password in (database.password, *database.normalized_query.get("password", ())):
        _refuse_default_password("DATABASE_URL", password, users)
    redis = parse_url(settings.redis_url) if settings.redis_url else {}  # type: ignore[no-untyped-call]  # untyped there
    named = "REDIS_URL" if environment.get("REDIS_URL", "").strip() else "REDIS_PASSWORD"
    _refuse_default_password(named, redis.get("password"), {redis.get("username")})


def _refuse_default_password(name: str, password: str | None, users: Set[str | None]) -> None:
    """No password is allowed: the server may authenticate by socket, certificate or password file instead."""
    if not password:
        return
    bare = _bare(password)
    if {bare, bare.rstrip("0123456789")} & DEFAULT_PASSWORDS or password in users:
        raise ConfigError(f"{name} has a default password: choose another one in production")


def _bare(secret: str) -> str:
    return re.sub(r"[^a-z0-9]", "", secret.lower())


def _is_placeholder(secret: str) -> bool:
    """Whether it is what examples show in a secret's place: ``...``, ``sk_live_...``, ``<key>``, ``changeme``."""
    return "..." in secret or secret.startswith("<") or _bare(secret) in PLACEHOLDERS


def _shown(value: str) -> str:
    """A refused value for the error text: only its beginning, and nothing of a gateway's secret."""
    if value.lower().startswith(("sk_", "rk_", "whsec_", "whsk_")):
        return "a value that looks like a gateway's secret"
    return repr(value) if len(value) <= SHOWN_CHARACTERS else f"{value[:SHOWN_CHARACTERS]!r}..."


class _Reader:
    """Reads and checks one setting at a time; each error is one line."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name, "").strip() or default

    def choice(self, name: str, default: str, *others: str) -> str:
        value = self.text(name, default)
        if value not in (default, *others):
            raise ConfigError(f"{name} must be one of {', '.join((default, *others))}, not {_shown(value)}")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.text(name, "1" if default else "0").lower()
        if value not in ("1", "true", "0", "false"):
            raise ConfigError(f"{name} must be 1 or 0 (true or false), not {_shown(value)}")
        return value in ("1", "true")

    def secret(self, name: str, app_env: str) -> str:
        value = self.text(name, "")  # the line end of a secret file is not part of the secret
        if app_env != "production":
            return value or DEVELOPMENT_SECRET
        if not value:
            raise ConfigError(f"{name} is required in production")
        if len(value.encode()) < SECRET_MIN_BYTES:
            raise ConfigError(f"{name} must be at least {SECRET_MIN_BYTES} bytes long in production")
        if value == DEVELOPMENT_SECRET:
            raise ConfigError(f"{name} is the published development secret")
        if len(set(value)) < SECRET_MIN_DIFFERENT_CHARACTERS or any(word in _bare(value) for word in PLACEHOLDERS):
            raise ConfigError(f"{name} is easy to guess: generate one with openssl rand -hex 32")
        return value

    def database_url(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not value.startswith(("sqlite://", "postgresql+psycopg://")):
            raise ConfigError(f"{name} must start with sqlite:// or postgresql+psycopg://")
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            raise ConfigError(f"{name} is not a database URL") from None
        in_memory = ":memory:" in (url.database or "") or {"memory", "memdb"} & set(map(str, url.query.values()))
        if url.drivername == "sqlite" and (not url.database or in_memory):
            raise ConfigError(f"{name} must name a file: an in-memory database is not shared between workers")
        return value

    def redis_url(self) -> str | None:
        """``REDIS_URL``, or a URL made from ``REDIS_HOST``, ``REDIS_PORT`` and so on; None if neither is set."""
        url = self.text("REDIS_URL", "")
        if url:
            return self._checked_redis_url(url)
        host = self.text("REDIS_HOST", "")
        if not host:
            return None
        if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host):  # not shown: may hold a password
            raise ConfigError("REDIS_HOST must be a host name or an address, and nothing else")
        port = self.whole("REDIS_PORT", 6379, at_least=1, at_most=LAST_PORT)
        database = self.whole("REDIS_CACHE_DB", 0, at_least=0)
        password = self._environment.get("REDIS_PASSWORD", "")
        credentials = f":{quote(password, safe='')}@" if password else ""
        return self._checked_redis_url(f"redis://{credentials}{host}:{port}/{database}")

    def _checked_redis_url(self, url: str) -> str:
        # Options in the URL would override our own timeouts. No part of the URL is shown: it may hold a password.
        error_text = (
            "REDIS_URL must read like redis://:password@host:6379/0, rediss://... or unix://path, without options"
        )
        try:
            parts = urlsplit(url)
            parse_url(url)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            usable = not parts.query or parts.scheme == "unix"
            usable = usable and (parts.scheme == "unix" or re.fullmatch(r"/?[0-9]*", parts.path) is not None)
            usable = usable and (parts.port or 1) > 0
        except (ValueError, TypeError):
            usable = False
        if not usable:
            raise ConfigError(error_text)
        return url

    def token(self, name: str) -> str | None:
        (value, *more) = self.tokens(name) or ("",)
        if more:
            raise ConfigError(f"{name} must be one key, without commas")
        return value or None

    def tokens(self, name: str) -> tuple[str, ...]:
        values = [value.strip() for value in self.text(name, "").split(",")]
        if not all(re.fullmatch(r"[\x21-\x7e]*", value) for value in values):  # not shown: it is a secret
            raise ConfigError(f"{name} must be visible ASCII characters without spaces")
        if any(_is_placeholder(value) for value in values):
            raise ConfigError(f"{name} is an example's placeholder: set the gateway's own value, or remove the line")
        return tuple(filter(None, values))

    def stripe_key(self, name: str) -> str | None:
        value = self.token(name)
        if value is not None and not value.startswith(("sk_", "rk_")):
            # The publishable key, pk_..., lies beside it on Stripe's page.
            raise ConfigError(f"{name} must be a secret or restricted key of Stripe's, which begins with sk_ or rk_")
        return value

    def paymongo_key(self, name: str) -> str | None:
        value = self.token(name)
        if value is not None and not value.startswith(("sk_test_", "sk_live_")):
            # The public key, pk_..., lies beside it on PayMongo's page.
            raise ConfigError(f"{name} must be a secret key of PayMongo's, which begins with sk_test_ or sk_live_")
        return value

    def api_base(self, name: str, default: str, app_env: str) -> str:
        value = self.text(name, default).rstrip("/")
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            raise ConfigError(f"{name} must be an http or https URL")
        if app_env == "production" and not value.startswith("https://"):
            raise ConfigError(f"{name} must be an https URL in production: every call carries the key")
        return value

    def public_url(self, name: str, app_env: str) -> str | None:
        """An origin without a slash at its end; None if it is not set."""
        value = self.text(name, "").removesuffix("/")
        return self._origin(name, value, app_env) if value else None

    def origins(self, name: str, app_env: str) -> frozenset[str]:
        values = filter(None, (value.strip() for value in self.text(name, "").split(",")))
        return frozenset(self._origin(name, value.removesuffix("/"), app_env) for value in values)

    def _origin(self, name: str, value: str, app_env: str) -> str:
        origin = origin_of(value)
        if origin is None or origin != value.lower():
            raise ConfigError(f"{name} must read like https://pay.example.org, without a path, not {_shown(value)}")
        if not is_safe_origin(origin, is_production=app_env == "production"):
            raise ConfigError(
                f"{name} must be https (outside production also http on this machine), not {_shown(value)}"
            )
        return origin

    def host_and_port(self, name: str) -> tuple[str, int] | None:
        value = self.text(name, "")
        if not value:
            return None
        parts = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", value)
        if parts is None or not 0 < int(parts[2]) <= LAST_PORT:
            raise ConfigError(f"{name} must read like 127.0.0.1:8001, not {_shown(value)}")
        return parts[1].strip("[]"), int(parts[2])

    def payment_instructions(self, prefix: str) -> dict[str, str]:
        """The clinic's instructions for patients, by method code; only for methods that are paid by hand."""
        texts = {code: self.text(f"{prefix}_{code.upper()}", "") for code in MANUAL_METHODS}
        return {code: instructions for code, instructions in texts.items() if instructions}

    def payment_gateways(self, name: str) -> dict[str, str]:
        """The gateway of each method that is named, by the method's code."""
        given: dict[str, str] = {}
        for pair in filter(None, (pair.strip() for pair in self.text(name, "").split(","))):
            method, _, gateway = (part.strip() for part in pair.partition(":"))
            if method not in METHODS or gateway not in GATEWAYS:
                raise ConfigError(
                    f"{name} must read like stripe:stripe,gcash:manual, with the methods {', '.join(METHODS)} and the"
                    f" gateways {', '.join(GATEWAYS)}, not {_shown(pair)}"
                )
            if method in given:
                raise ConfigError(f"{name} names {method} twice")
            given[method] = gateway
        return given

    def timezone(self, name: str, default: str) -> ZoneInfo:
        value = self.text(name, default)
        try:
            return ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones, such as Asia
            raise ConfigError(f"{name} must be an IANA name such as Asia/Manila, not {_shown(value)}") from None

    def printed(self, name: str, *, at_most: int) -> str | None:
        """A line for pages and paper; None if there is none."""
        value = self.text(name, "")
        if len(value) > at_most or not value.isprintable():
            raise ConfigError(f"{name} must be one line of at most {at_most} printable characters")
        return value or None

    def rate(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not re.fullmatch(r"[1-9][0-9]{0,8} per (second|minute|hour|day)", value):
            raise ConfigError(f"{name} must read like '10 per minute', not {_shown(value)}")
        return value

    def whole(self, name: str, default: int, *, at_least: int, at_most: int = 999_999_999) -> int:
        value = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,9}", value) or not at_least <= int(value) <= at_most:
            raise ConfigError(f"{name} must be a whole number from {at_least} to {at_most}, not {_shown(value)}")
        return int(value)

    def _decimal(self, name: str, default: str) -> Decimal:
        value = self.text(name, default)
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise ConfigError(f"{name} must be a number, not {_shown(value)}") from None
        if not number.is_finite():
            raise ConfigError(f"{name} must be a number, not {_shown(value)}")
        return number

    def amount_minor(self, name: str, default: str) -> int:
        minor = min(self._decimal(name, default), AMOUNT_CEILING + 1) * MINOR_PER_MAJOR
        if not 0 < minor <= AMOUNT_CEILING * MINOR_PER_MAJOR or minor != minor.to_integral_value():
            raise ConfigError(f"{name} must be above 0, at most {AMOUNT_CEILING}, with at most 2 decimals")
        return int(minor)

    def limit_minor(self, name: str) -> int | None:
        """An amount of 0 or more; None if it is not set."""
        if not self.text(name, ""):
            return None
        minor = min(self._decimal(name, "0"), AMOUNT_CEILING + 1) * MINOR_PER_MAJOR
        if not 0 <= minor <= AMOUNT_CEILING * MINOR_PER_MAJOR or minor != minor.to_integral_value():
            raise ConfigError(f"{name} must be from 0 to {AMOUNT_CEILING}, with at most 2 decimals")
        return int(minor)

    def rate_basis_points(self, name: str, default: str) -> int:
        points = min(self._decimal(name, default), Decimal(2)) * BASIS_POINTS_PER_ONE
        if not 0 <= points <= BASIS_POINTS_PER_ONE or points != points.to_integral_value():
            raise ConfigError(f"{name} must be from 0 to 1 (0.12 is 12 %), with at most 4 decimals")
        return int(points)

    def currency(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not re.fullmatch(r"[A-Z]{3}", value):
            raise ConfigError(f"{name} must be an ISO 4217 code of three capitals, not {_shown(value)}")
        if value not in currencies_in_use():
            raise ConfigError(f"{name} {value} is not a currency in use today")
        if value in CURRENCIES_WITHOUT_HUNDREDTHS:
            raise ConfigError(f"{name} {value} has no hundredths, and amounts are stored in hundredths")
        return value
