"""Who waits for whom before the database is asked. None of it is needed for correctness: index and version decide.

``optimistic``: nothing ahead. ``pessimistic``: the row is locked with ``SELECT ... FOR UPDATE``. ``redis``: a lease
in Redis around the whole transaction with its retries. ``hybrid``: the lease, then the row.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from flask import current_app
from redis import Redis
from redis.exceptions import LockError
from redis.lock import Lock

from payments_app.errors import LockTimeout
from payments_app.observability import metrics
from payments_app.observability.logging import current_request_id
from payments_app.redis_client import GuardedRedis, RedisUnavailable, current_redis

log = logging.getLogger(__name__)

CREATE_PREFIX = "payment:lock:"
CHANGE_PREFIX = "payment:confirm:"

# Every single lock is for those who look closely. That Redis is away, the breaker has said once, and louder. A lock
# that was not had in time is a request refused.
_LEVELS = {"acquired": logging.DEBUG, "skipped": logging.INFO, "busy": logging.WARNING}

# What PTTL says of a key that ended between two looks at it.
_GONE = -2


class Strategy(StrEnum):
    OPTIMISTIC = "optimistic"
    PESSIMISTIC = "pessimistic"
    REDIS = "redis"
    HYBRID = "hybrid"


@contextmanager
def create_lock(consultation_id: int, user_id: int) -> Iterator[None]:
    """Around the creation of a payment: its transaction, and all attempts at it.

    Raises:
        LockTimeout: somebody else held the lease all the time (409, retryable).
    """
    with _lease(f"{CREATE_PREFIX}{consultation_id}:{user_id}"):
        yield


@contextmanager
def change_lock(payment_id: int) -> Iterator[None]:
    """Around any change of a payment: its transaction, and all attempts at it.

    Raises:
        LockTimeout: somebody else held the lease all the time (409, retryable).
    """
    with _lease(f"{CHANGE_PREFIX}{payment_id}"):
        yield


def uses_row_locks() -> bool:
    """Whether a transaction is to lock the row it will change: the consultation of a create, else the payment."""
    return _strategy() in (Strategy.PESSIMISTIC, Strategy.HYBRID)


def _strategy() -> str:
    strategy: str = current_app.config["SETTINGS"].payment_locking
    return strategy


@contextmanager
def _lease(name: str) -> Iterator[None]:
    redis = current_redis()
    if redis is None or _strategy() not in (Strategy.REDIS, Strategy.HYBRID):
        yield
        return
    lock = _acquire(redis, name)
    try:
        yield
    finally:
        if lock is not None:
            _release(redis, lock)


def _acquire(redis: GuardedRedis, name: str) -> Lock | None:
    """The lock, held; None where Redis is away, which the database makes up for."""
    settings = current_app.config["SETTINGS"]
    delay_seconds = settings.payment_lock_retry_delay_ms / 1000
    token = _owner()
    started = time.monotonic()

    def attempt(client: Redis) -> Lock | None:
        lock = Lock(client, name, timeout=settings.payment_lock_timeout_seconds)
        return lock if lock.acquire(blocking=False, token=token) else None

    for number in range(settings.payment_lock_max_attempts):
        if number > 0:
            time.sleep(delay_seconds)
        try:
            # Each by itself: when Redis goes away meanwhile, the breaker ends the wait.
            lock = redis.call(attempt)
        except RedisUnavailable:
            _note("skipped", name, started)
            return None
        if lock is not None:
            _note("acquired", name, started)
            return lock
    _note("busy", name, started)
    raise LockTimeout


def _release(redis: GuardedRedis, lock: Lock) -> None:
    """Give the lease back if it is still ours: redis-py compares the token, so another's is never released."""
    try:
        redis.call(lambda _client: lock.release())
    except LockError:
        # No harm: the database decided. But the lease is too short for what it is meant to cover.
        log.warning("Lock lost: its lease of %s s ran out first: %s", lock.timeout, lock.name)
    except RedisUnavailable:
        log.debug("Lock not released, its lease will end: %s", lock.name)
    else:
        log.debug("Lock released: %s", lock.name)


def _owner() -> str:
    """Who holds a lease, for ``flask locks list``; random at the end, so that no two holders are alike."""
    request_id = current_request_id() or "command"
    return f"{socket.gethostname()}/{os.getpid()}/{request_id}/{secrets.token_hex(4)}"


def _note(outcome: str, name: str, started: float) -> None:
    waited_seconds = time.monotonic() - started
    metrics.LOCK_WAIT_SECONDS.labels(outcome).observe(waited_seconds)
    log.log(_LEVELS[outcome], "Lock %s: %s after %.1f ms", outcome, name, waited_seconds * 1000)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as Redis knows it."""

    name: str
    owner: str
    # None: it has no end, so none of ours; somebody set it by hand.
    remaining_seconds: float | None


def list_leases() -> list[Lease]:
    """All leases held at present, found by SCAN, which never blocks Redis.

    Raises:
        RedisUnavailable: there is no Redis, or it is away.
    """
    redis = current_redis()
    if redis is None:
        raise RedisUnavailable
    return redis.call(_scan)


def _scan(client: Redis) -> list[Lease]:
    found = []
    for prefix in (CREATE_PREFIX, CHANGE_PREFIX):
        for name in client.scan_iter(f"{prefix}*", count=1000):
            owner = client.get(name) if client.type(name) == "string" else "unknown: not a lock of ours"
            remaining_ms = client.pttl(name)
            if owner is not None and remaining_ms != _GONE:
                found.append(Lease(str(name), str(owner), remaining_ms / 1000 if remaining_ms >= 0 else None))
    return sorted(found, key=lambda lease: lease.name)
