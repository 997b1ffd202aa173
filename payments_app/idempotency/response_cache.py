"""Caches finished responses in Redis, so that an early retry need not query the database for them.

A copy is written after the commit, before the response leaves, and may be missing at any time. It is used only for the
same database, user, key and fingerprint; the database decides about every other request. Whether the user may still act
is read from the database before a copy is sent (``run_idempotent``): a copy saves the checks, the lock and the
rendering, but not that query.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache

from flask import current_app

from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.redis_client import RedisUnavailable, current_redis, read, write_with_response


def get(request: IdempotentRequest) -> StoredResponse | None:
    """The recent response to the same request, or None if Redis has none."""
    cached = read(name_of_copy(request.user_id, request.key))
    if cached is None:
        return None
    try:
        database, fingerprint, status, body = json.loads(cached)
    except (ValueError, TypeError):  # written by another program, or by another release
        return None
    if (database, fingerprint) != (_database(), request.fingerprint):
        return None
    return StoredResponse(status, body, replayed=True)


def put(request: IdempotentRequest, response: StoredResponse) -> None:
    """Cache a response that is committed and final. Do not call this inside a transaction."""
    if current_redis() is None:
        return
    ttl_seconds = current_app.config["SETTINGS"].idempotency_cache_ttl_seconds
    copy = json.dumps([_database(), request.fingerprint, response.status, response.body])
    write_with_response(("SET", name_of_copy(request.user_id, request.key), copy, "EX", ttl_seconds))


def discard(keys: Sequence[tuple[int, str]]) -> bool:
    """Remove the copies of these keys, each a user's id and the key itself. False if Redis does not answer."""
    redis = current_redis()
    if redis is None or not keys:
        return True
    try:
        redis.run([("DEL", *(name_of_copy(user_id, key) for user_id, key in keys))])
    except RedisUnavailable:
        return False
    return True


def name_of_copy(user_id: int, key: str) -> str:
    """The key in Redis."""
    return f"payment:idempotency:{user_id}:{key}"


def _database() -> str:
    """An id of the database, so that two databases may share one Redis."""
    return _hash_of(current_app.config["SETTINGS"].database_url)


@cache
def _hash_of(database_url: str) -> str:
    return hashlib.sha256(database_url.encode()).hexdigest()[:16]
