"""Redis is an optimisation: every call may fail, and is limited to 100 ms unless `REDIS_TIMEOUT` says otherwise.

A circuit breaker opens when Redis is away, or refuses a call (read-only, full, a wrong password), so that not every
request waits for a timeout. The trial that closes it writes first: a Redis that takes no writes still answers reads and
PING.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from flask import Flask, current_app, g, has_request_context
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.connection import ConnectionInterface
from redis.exceptions import LockError, RedisError, ResponseError
from redis.retry import Retry

from config import Settings
from payments_app.circuit_breaker import CircuitBreaker, CircuitOpen
from payments_app.observability import metrics

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# A command and its arguments.
Command = tuple[str | int, ...]

# Seconds between two trials of a Redis that is away. Each costs one request per process a timeout.
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


class GuardedRedis:
    """A Redis client behind a breaker."""

    def __init__(self, url: str, *, timeout_ms: int, cool_down_seconds: float = COOL_DOWN_SECONDS) -> None:
        self._client = redis.Redis.from_url(
            url,
            **connection_options(timeout_ms),
            decode_responses=True,  # every value there is text
            encoding_errors="replace",  # an error would leave the other replies of a pipeline unread
        )
        self.breaker = CircuitBreaker(cool_down_seconds=cool_down_seconds, on_open=_went_away, on_close=_came_back)

    def call(self, operation: Callable[["redis.Redis"], Result]) -> Result:
        """The operation's result.

        Raises:
            RedisUnavailable: Redis is away or slow, or refuses the operation.
            LockError: from redis-py's Lock; Redis itself has answered.
        """
        is_trial = self.breaker.is_open
        try:
            with self.breaker.allowed():
                return self._attempt(operation, is_trial=is_trial)
        except CircuitOpen:
            raise RedisUnavailable from None

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """The results of the commands, sent in one round trip; None for a key that has an unexpected value.

        Raises:
            RedisUnavailable: as ``call`` does.
        """

        return self.call(lambda client: _send(client.connection_pool, commands))

    def _attempt(self, operation: Callable[["redis.Redis"], Result], *, is_trial: bool) -> Result:
        try:
            if is_trial:
                write_probe(self._client)
            result = operation(self._client)
        except LockError:
            if is_trial:
                self.breaker.succeeded()
            raise
        except (RedisError, OSError) as error:
            # One key with an unexpected value does not mean that Redis is away.
            if not _is_strange_value(error):
                self.breaker.failed(error)
                # The same name may lead to another server after a failover.
                self._client.connection_pool.disconnect(inuse_connections=False)
            raise RedisUnavailable from error
        # Another call may have failed meanwhile; only one that has written knows that Redis is well again.
        if is_trial:
            self.breaker.succeeded()
        return result


def _send(pool: redis.ConnectionPool, commands: Sequence[Command]) -> list[Any]:
    """The results of the commands; None for a key that has an unexpected value.

    Not by a pipeline of redis-py: it takes twice as long, and its errors quote the command. Keys have e-mail addresses.
    """
    connection = pool.get_connection()
    try:
        packed = b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]  # its types allow for one argument
        connection.send_packed_command([packed])  # type: ignore[no-untyped-call]  # it has no types
        # All, also after an error: the connection's next user must find no reply.
        results = [_reply(connection) for _ in commands]
    finally:
        pool.release(connection)
    for result in results:
        if isinstance(result, ResponseError):
            raise result
    return results


def _reply(connection: ConnectionInterface) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return None if _is_strange_value(error) else error


def _is_strange_value(error: Exception) -> bool:
    return any(text in str(error) for text in _STRANGE_VALUES)


def _went_away(error: Exception) -> None:
    metrics.REDIS_BREAKER_OPEN.set(1)
    metrics.REDIS_BREAKER_OPENINGS.inc()
    log.warning("Redis is away, going on without it: %s", error)


def _came_back() -> None:
    metrics.REDIS_BREAKER_OPEN.set(0)
    log.info("Redis is back")


def init_app(app: Flask) -> None:
    """Make the Redis client if the settings name one. It connects lazily: a missing Redis does not delay the start."""
    settings: Settings = app.config["SETTINGS"]
    url, timeout_ms = settings.redis_url, settings.redis_timeout_ms
    app.extensions["redis"] = GuardedRedis(url, timeout_ms=timeout_ms) if url else None


def current_redis() -> GuardedRedis | None:
    """The app's Redis client; None if no Redis is configured."""
    guarded: GuardedRedis | None = current_app.extensions["redis"]
    return guarded


def run(commands: Sequence[Command]) -> list[Any]:
    """The results of the commands, in one round trip; None for each if there is no Redis, or it does not answer."""
    if not commands:
        return []
    guarded = current_redis()
    if guarded is None:
        return [None] * len(commands)
    try:
        return guarded.run(commands)
    except RedisUnavailable:
        return [None] * len(commands)  # logged by the breaker


def read_ahead(name: str, value: str | None) -> None:
    """Keep a value that was read with others for the ``read`` of this request."""
    g.setdefault("redis_values", {})[name] = value


def read(name: str) -> str | None:
    """The value of a key, also if it was read ahead; None if there is none, or Redis does not answer."""
    values: dict[str, str | None] = g.get("redis_values", {})
    value: str | None = values.pop(name) if name in values else run([("GET", name)])[0]
    return value


def write_with_response(command: Command) -> None:
    """Send a command with the others of this request, before its response leaves; outside of a request, at once."""
    if has_request_context():
        g.setdefault("redis_commands", []).append(command)
    else:
        run([command])


def run_with_pending(commands: Sequence[Command]) -> list[Any]:
    """As ``run``, in one round trip with what ``write_with_response`` has kept. Returns the results of ``commands``."""
    return run([*commands, *g.pop("redis_commands", [])])[: len(commands)]
