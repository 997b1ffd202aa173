"""Rate limits by Flask-Limiter: counted in Redis if it is configured, else in each process separately."""

import logging
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from flask import Flask, Response, current_app, g
from flask_limiter import Limiter
from redis.exceptions import RedisError

from config import Settings
from payments_app.api.client_network import client_network
from payments_app.redis_client import connection_options

log = logging.getLogger(__name__)

# Flask-Limiter would set Retry-After on every response, and overwrite ours. It writes to this header instead.
_LIMITERS_RETRY_AFTER = "X-RateLimit-Retry-After"

# Flask-Limiter's decorator has no such type: it returns a function with the same signature.
Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


class FallingBackLimiter(Limiter):
    """Flask-Limiter falls back to memory if reading from Redis fails; this class also does so if writing fails."""

    def _Limiter__check_conditional_deductions(self, response: Response) -> None:  # noqa: N802  # its private method
        for limit, arguments in self.context.conditional_deductions.items():
            if limit.deduct_when is None or not limit.deduct_when(response):
                continue
            try:
                self.limiter.hit(limit.limit, *arguments, cost=limit.deduction_amount)
            except (RedisError, OSError) as error:
                if not self._storage_dead:
                    log.warning("Rate limits: Redis unavailable, counting in this process only: %s", error)
                self._storage_dead = True
                self.limiter.hit(limit.limit, *arguments, cost=limit.deduction_amount)


limiter = FallingBackLimiter(key_func=client_network)


def init_app(app: Flask) -> None:
    """Set up the limits. While Redis is down, each process counts for itself."""
    settings = app.config["SETTINGS"]
    app.config.update(
        RATELIMIT_ENABLED=settings.ratelimit_enabled,
        RATELIMIT_STORAGE_URI=_storage_uri(settings.redis_url),
        RATELIMIT_STORAGE_OPTIONS=connection_options(settings.redis_timeout_ms) if settings.redis_url else {},
        RATELIMIT_IN_MEMORY_FALLBACK_ENABLED=True,
        # A failure of the limiter must not refuse a payment.
        RATELIMIT_SWALLOW_ERRORS=True,
        RATELIMIT_HEADERS_ENABLED=True,
        RATELIMIT_HEADER_RETRY_AFTER=_LIMITERS_RETRY_AFTER,
        RATELIMIT_KEY_PREFIX="payment:rate",
    )
    app.after_request(_set_retry_after)  # registered before the limiter's function, so it runs after it
    limiter.init_app(app)


def _settings() -> Settings:
    settings: Settings = current_app.config["SETTINGS"]
    return settings


def _failed(response: Response) -> bool:
    return response.status_code == 401  # noqa: PLR2004  # only a wrong password is 401 here


# New payments per user. A replay is not counted. A payment link has a count of its own: its holder cannot use up the
# patient's.
payments_per_user: Decorator = limiter.limit(
    lambda: _settings().ratelimit_payments,
    key_func=lambda: f"user:{g.caller.user_id}" if g.caller.link_id is None else f"link:{g.caller.link_id}",
    deduct_when=lambda response: "Idempotent-Replayed" not in response.headers,
)

# All requests of an API key together, whatever they ask for: a program in a loop must not take the service from people.
requests_per_key: Decorator = limiter.shared_limit(
    lambda: _settings().ratelimit_api_keys, scope="api key", key_func=lambda: f"key:{g.caller.key_id}"
)

# Failed logins per network and e-mail address. So an attacker elsewhere cannot lock a patient out by guessing, and
# users behind one address, such as a clinic's, do not use up each other's attempts. The view sets ``g.login_email``.
failed_logins: Decorator = limiter.limit(
    lambda: _settings().ratelimit_failed_logins,
    key_func=lambda: f"login:{client_network()}:{g.login_email}",
    deduct_when=_failed,
)

# Failed logins per network: against trying one e-mail address after another.
failed_logins_per_address: Decorator = limiter.limit(
    lambda: _settings().ratelimit_failed_logins_per_address, deduct_when=_failed
)

# Payment links that lead nowhere, per network: the same limit as for failed logins, with a count of its own. A token
# has 256 random bits and cannot be guessed; the limit protects the database from the attempts.
failed_exchanges: Decorator = limiter.limit(
    lambda: _settings().ratelimit_failed_logins_per_address,
    deduct_when=lambda response: response.status_code == 404,  # noqa: PLR2004  # of this one endpoint
)


def _storage_uri(redis_url: str | None) -> str:
    if redis_url is None:
        return "memory://"
    return f"redis+{redis_url}" if redis_url.startswith("unix://") else redis_url


def _set_retry_after(response: Response) -> Response:
    reset_at = response.headers.get("X-RateLimit-Reset")
    if reset_at is not None:  # the memory storage has fractions of seconds
        response.headers["X-RateLimit-Reset"] = str(math.ceil(float(reset_at)))
    seconds = response.headers.pop(_LIMITERS_RETRY_AFTER, None)
    if response.status_code == 429 and seconds is not None:  # noqa: PLR2004  # Too Many Requests
        response.headers["Retry-After"] = str(max(1, int(seconds)))
    return response
