"""Rate limits, by Flask-Limiter: shared through Redis where there is one, else counted in each process by itself."""

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

# Flask-Limiter would put Retry-After on every answer, and raise our own; under this name it does no harm.
_LIMITERS_RETRY_AFTER = "X-RateLimit-Retry-After"

# What Flask-Limiter's own decorator does not say of itself: it gives back a function of the same kind.
Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


class FallingBackLimiter(Limiter):
    """Flask-Limiter, which falls back to memory when Redis cannot be read, but not when it cannot be written."""

    def _Limiter__check_conditional_deductions(self, response: Response) -> None:  # noqa: N802  # its private method
        for limit, arguments in self.context.conditional_deductions.items():
            if limit.deduct_when is None or not limit.deduct_when(response):
                continue
            try:
                self.limiter.hit(limit.limit, *arguments, cost=limit.deduction_amount)
            except (RedisError, OSError) as error:
                if not self._storage_dead:
                    log.warning("Rate limits are counted by this process alone for now: %s", error)
                self._storage_dead = True
                self.limiter.hit(limit.limit, *arguments, cost=limit.deduction_amount)


limiter = FallingBackLimiter(key_func=client_network)


def init_app(app: Flask) -> None:
    """Count where the settings say. When Redis goes away, each process goes on counting by itself."""
    settings = app.config["SETTINGS"]
    app.config.update(
        RATELIMIT_ENABLED=settings.ratelimit_enabled,
        RATELIMIT_STORAGE_URI=_storage_uri(settings.redis_url),
        RATELIMIT_STORAGE_OPTIONS=connection_options(settings.redis_timeout_ms) if settings.redis_url else {},
        RATELIMIT_IN_MEMORY_FALLBACK_ENABLED=True,
        # A limit that cannot be counted is no reason to refuse a payment.
        RATELIMIT_SWALLOW_ERRORS=True,
        RATELIMIT_HEADERS_ENABLED=True,
        RATELIMIT_HEADER_RETRY_AFTER=_LIMITERS_RETRY_AFTER,
        RATELIMIT_KEY_PREFIX="payment:rate",
    )
    app.after_request(_say_when_to_retry)  # before the limiter's own, which therefore runs first
    limiter.init_app(app)


def _settings() -> Settings:
    settings: Settings = current_app.config["SETTINGS"]
    return settings


def _failed(response: Response) -> bool:
    return response.status_code == 401  # noqa: PLR2004  # the one status of a refused password


# So many payments a minute for one user. A replay is no new payment.
payments_per_user: Decorator = limiter.limit(
    lambda: _settings().ratelimit_payments,
    key_func=lambda: f"user:{g.caller.user_id}",
    deduct_when=lambda response: "Idempotent-Replayed" not in response.headers,
)

# Only failures count, by network and e-mail: so nobody can lock a patient out from elsewhere by guessing, and those
# behind one address, such as a clinic's, do not use up one another's attempts. The view notes ``g.login_email``.
failed_logins: Decorator = limiter.limit(
    lambda: _settings().ratelimit_failed_logins,
    key_func=lambda: f"login:{client_network()}:{g.login_email}",
    deduct_when=_failed,
)

# A network that fails as often as this tries one e-mail after another.
failed_logins_per_address: Decorator = limiter.limit(
    lambda: _settings().ratelimit_failed_logins_per_address, deduct_when=_failed
)

# So many links that lead nowhere may one network try: as many as logins that fail, and counted apart from them. Nobody
# guesses 256 bits; each attempt costs the database a question.
failed_exchanges: Decorator = limiter.limit(
    lambda: _settings().ratelimit_failed_logins_per_address,
    deduct_when=lambda response: response.status_code == 404,  # noqa: PLR2004  # of this one endpoint
)


def _storage_uri(redis_url: str | None) -> str:
    if redis_url is None:
        return "memory://"
    return f"redis+{redis_url}" if redis_url.startswith("unix://") else redis_url


def _say_when_to_retry(response: Response) -> Response:
    reset_at = response.headers.get("X-RateLimit-Reset")
    if reset_at is not None:  # the memory storage counts fractions of seconds
        response.headers["X-RateLimit-Reset"] = str(math.ceil(float(reset_at)))
    seconds = response.headers.pop(_LIMITERS_RETRY_AFTER, None)
    if response.status_code == 429 and seconds is not None:  # noqa: PLR2004  # Too Many Requests
        response.headers["Retry-After"] = str(max(1, int(seconds)))
    return response
