"""Redis is an optimisation: every call may fail, and is limited to 100 ms unless `REDIS_TIMEOUT` says otherwise.

A circuit breaker opens when Redis is away, or refuses a call (read-only, full, a wrong password), so that not every
request waits for a timeout. While it is open, calls fail at once; every few seconds one call is allowed, to find out
whether Redis is back. That call writes first: a Redis that takes no writes still answers reads and PING.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from flask import Flask, current_app
from redis.backoff import NoBackoff
from redis.exceptions import LockError, RedisError
from redis.retry import Retry

from config import Settings
from payments_app.observability import metrics

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Seconds between two probes of a Redis that is away. Each probe costs one request per process a timeout.
COOL_DOWN_SECONDS = 5.0

# Errors of one key that has an unexpected value; a script's error quotes them.
_STRANGE_VALUES = ("WRONGTYPE", "not an integer")

# The key that is written to find out whether Redis takes writes, and the milliseconds that it stays.
_PROBE_KEY = "payment:probe"
_PROBE_MS = 1_000


def connection_options(timeout_ms: int) -> dict[str, Any]:
    """Options of every connection to Redis: the timeout, for connecting and for each reply, and no retries."""
    return {
        "socket_connect_timeout": timeout_ms / 1000,
        "socket_timeout": timeout_ms / 1000,
        # redis-py's default is ten retries: with them, one PING to a dead port took four seconds.
        "retry": Retry(NoBackoff(), 0),
    }


class RedisUnavailable(Exception):
    """Redis is away, refuses or is not configured. Callers continue without it; clients never see this error."""


def write_probe(client: "redis.Redis") -> None:
    """Write a key. A Redis that is read-only or full refuses it, and so does one that does not know our password."""
    client.set(_PROBE_KEY, "1", px=_PROBE_MS)


class Breaker:
    """Closed: all calls are allowed. Open: none, except one per ``cool_down_seconds`` (half-open)."""

    def __init__(self, cool_down_seconds: float = COOL_DOWN_SECONDS) -> None:
        self._cool_down_seconds = cool_down_seconds
        self._lock = threading.Lock()
        self._probe_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    def allow_request(self) -> bool:
        """Whether this call is allowed. When a probe is due, exactly one caller gets True."""
        if self._probe_at is None:
            return True
        with self._lock:
            if self._probe_at is None:
                return True
            if time.monotonic() < self._probe_at:
                return False
            self._probe_at = time.monotonic() + self._cool_down_seconds
            return True

    def failed(self, error: Exception) -> None:
        """Open. It is logged once, however many calls fail at the same moment."""
        with self._lock:
            was_closed = self._probe_at is None
            self._probe_at = time.monotonic() + self._cool_down_seconds
            metrics.REDIS_BREAKER_OPEN.set(1)
        if was_closed:
            metrics.REDIS_BREAKER_OPENINGS.inc()
            log.warning("Redis is away, going on without it: %s", error)

    def succeeded(self) -> None:
        """Close, if it was open."""
        if self._probe_at is None:
            return
        with self._lock:
            was_open, self._probe_at = self._probe_at is not None, None
            metrics.REDIS_BREAKER_OPEN.set(0)
        if was_open:
            log.info("Redis is back")


class GuardedRedis:
    """A Redis client behind a breaker."""

    def __init__(self, url: str, breaker: Breaker | None = None, *, timeout_ms: int) -> None:
        self._client = redis.Redis.from_url(
            url,
            **connection_options(timeout_ms),
            decode_responses=True,  # every value there is text
        )
        self.breaker = breaker or Breaker()

    def call(self, operation: Callable[["redis.Redis"], Result]) -> Result:
        """The operation's result.

        Raises:
            RedisUnavailable: Redis is away or slow, or refuses the operation.
            LockError: from redis-py's Lock; Redis itself has answered.
        """
        is_probe = self.breaker.is_open
        if not self.breaker.allow_request():
            raise RedisUnavailable
        try:
            if is_probe:
                write_probe(self._client)
            result = operation(self._client)
        except LockError:
            if is_probe:
                self.breaker.succeeded()
            raise
        except (RedisError, OSError, UnicodeDecodeError) as error:
            # One key with an unexpected value does not mean that Redis is away.
            if not isinstance(error, UnicodeDecodeError) and not any(text in str(error) for text in _STRANGE_VALUES):
                self.breaker.failed(error)
                # The same name may lead to another server after a failover.
                self._client.connection_pool.disconnect(inuse_connections=False)
            raise RedisUnavailable from error
        # Another call may have failed meanwhile; only one that has written knows that Redis is well again.
        if is_probe:
            self.breaker.succeeded()
        return result


def init_app(app: Flask) -> None:
    """Make the Redis client if the settings name one. It connects lazily: a missing Redis does not delay the start."""
    settings: Settings = app.config["SETTINGS"]
    url, timeout_ms = settings.redis_url, settings.redis_timeout_ms
    app.extensions["redis"] = GuardedRedis(url, timeout_ms=timeout_ms) if url else None


def current_redis() -> GuardedRedis | None:
    """The app's Redis client; None if no Redis is configured."""
    guarded: GuardedRedis | None = current_app.extensions["redis"]
    return guarded
