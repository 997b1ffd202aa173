"""The four locking strategies. Correctness does not depend on them: the index and the version decide.

``optimistic``: no lock. ``pessimistic``: the row is locked with ``SELECT ... FOR UPDATE``. ``redis``: a lease in Redis
around the whole transaction and its retries. ``hybrid``: the lease, then the row lock.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum

from flask import current_app
from redis import Redis
from redis.exceptions import LockError
from redis.lock import Lock

from payments_app.db.row_waits import RowWait
from payments_app.errors import LockTimeout
from payments_app.observability import metrics
from payments_app.observability.logging import current_request_id
from payments_app.redis_client import GuardedRedis, RedisUnavailable, current_redis

log = logging.getLogger(__name__)

CREATE_PREFIX = "payment:lock:"
CHANGE_PREFIX = "payment:confirm:"

# A single lock is a detail. When Redis is away, the breaker logs it once, as a warning. A lock that is not acquired in
# time means a refused request.
_LEVELS = {"acquired": logging.DEBUG, "skipped": logging.INFO, "busy": logging.WARNING}

# Seconds with the same holder of a lease, after which at most two requests of this process go on waiting for it. As for
# a row (LOCK_TIMEOUT_MS), and five times the usual pause between two attempts.
STUCK_AFTER_SECONDS = 0.5

# PTTL's value for a key that does not exist: it expired between two commands.
_EXPIRED = -2


class Strategy(StrEnum):
    OPTIMISTIC = "optimistic"
    PESSIMISTIC = "pessimistic"
    REDIS = "redis"
    HYBRID = "hybrid"


def create_lock(consultation_id: int, user_id: int) -> AbstractContextManager[None]:
    """Hold the lock during the creation of a payment: around its transaction and all attempts.

    Raises:
        LockTimeout: another holder kept the lease all the time (409, retryable).
    """
    return _lease(f"{CREATE_PREFIX}{consultation_id}:{user_id}")


def change_lock(payment_id: int) -> AbstractContextManager[None]:
    """Hold the lock during any change of a payment: around its transaction and all attempts.

    Raises:
        LockTimeout: another holder kept the lease all the time (409, retryable).
    """
    return _lease(f"{CHANGE_PREFIX}{payment_id}")


def uses_row_locks() -> bool:
    """Whether a transaction must lock the row first: the consultation for a create, otherwise the payment."""
    return _strategy() in (Strategy.PESSIMISTIC, Strategy.HYBRID)


def uses_leases() -> bool:
    """Whether a change is made under a lease in Redis: then it decides on nothing that was read before."""
    return _strategy() in (Strategy.REDIS, Strategy.HYBRID)


def _strategy() -> str:
    strategy: str = current_app.config["SETTINGS"].payment_locking
    return strategy


@contextmanager
def _lease(name: str) -> Iterator[None]:
    redis = current_redis()
    if redis is None or not uses_leases():
        yield
        return
    with RowWait() as wait:
        lock = _acquire(redis, name, wait)
    try:
        yield
    finally:
        if lock is not None:
            _release(redis, lock)


def _acquire(redis: GuardedRedis, name: str, wait: RowWait) -> Lock | None:
    """The acquired lock; None if Redis is away, because the database protects payments without it."""
    started = time.monotonic()
    try:
        return _acquire_in_turn(redis, name, wait, started)
    except LockTimeout:
        _record("busy", name, started)
        raise


def _acquire_in_turn(redis: GuardedRedis, name: str, wait: RowWait, started: float) -> Lock | None:
    settings = current_app.config["SETTINGS"]
    delay_seconds = settings.payment_lock_retry_delay_ms / 1000
    token = _owner()
    wait.enter((name, 0), stuck_after_seconds=STUCK_AFTER_SECONDS)

    def attempt(client: Redis) -> tuple[Lock | None, object]:
        lock = Lock(client, name, timeout=settings.payment_lock_timeout_seconds)
        if lock.acquire(blocking=False, token=token):
            return lock, token
        return None, client.get(name)

    seen: object = None
    for attempt_number in range(settings.payment_lock_max_attempts):
        if attempt_number > 0:
            wait.require_place()
            time.sleep(delay_seconds)
        try:
            # Each attempt is a call of its own: if Redis goes away meanwhile, the breaker ends the wait.
            lock, holder = redis.call(attempt)
        except RedisUnavailable:
            _record("skipped", name, started)
            return None
        if lock is not None:
            _record("acquired", name, started)
            return lock
        if seen is not None and holder != seen:  # another process may have got it in between
            wait.note_progress()
        seen = holder
    raise LockTimeout


def _release(redis: GuardedRedis, lock: Lock) -> None:
    """Release the lease if this process still holds it: redis-py compares the token, so no other lease is released."""
    try:
        redis.call(lambda _client: lock.release())
    except LockError:
        # No harm: the database decided. But the lease is shorter than the work that it should cover.
        log.warning("Lock lost: its lease of %s s expired before the work was done: %s", lock.timeout, lock.name)
    except RedisUnavailable:
        log.debug("Lock not released, its lease will expire: %s", lock.name)
    else:
        log.debug("Lock released: %s", lock.name)


def _owner() -> str:
    """The holder's name for ``flask locks list``, with a random suffix, so that no two holders are equal."""
    request_id = current_request_id() or "command"
    return f"{socket.gethostname()}/{os.getpid()}/{request_id}/{secrets.token_hex(4)}"


def _record(outcome: str, name: str, started: float) -> None:
    waited_seconds = time.monotonic() - started
    metrics.LOCK_WAIT_SECONDS.labels(outcome).observe(waited_seconds)
    log.log(_LEVELS[outcome], "Lock %s: %s after %.1f ms", outcome, name, waited_seconds * 1000)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as stored in Redis."""

    name: str
    owner: str
    # None: it never expires, so this service did not make it.
    remaining_seconds: float | None


def list_leases() -> list[Lease]:
    """All leases held at present, found by SCAN, which does not block Redis.

    Raises:
        RedisUnavailable: no Redis is configured, or it is away.
    """
    redis = current_redis()
    if redis is None:
        raise RedisUnavailable
    return redis.call(_scan)


def _scan(client: Redis) -> list[Lease]:
    found = []
    for prefix in (CREATE_PREFIX, CHANGE_PREFIX):
        for name in client.scan_iter(f"{prefix}*", count=1000):
            owner = client.get(name) if client.type(name) == "string" else "unknown: not a lock of this service"
            remaining_ms = client.pttl(name)
            if owner is not None and remaining_ms != _EXPIRED:
                found.append(Lease(str(name), str(owner), remaining_ms / 1000 if remaining_ms >= 0 else None))
    return sorted(found, key=lambda lease: lease.name)
