"""Copies of finished answers in Redis, so that a retry soon after need not ask the database.

A copy is written after the commit and may be missing at any time. It is believed only for the database, the
user and the fingerprint it was written for; whatever else a request is, the database judges it. Whether the user still
may is asked of the database before a copy is sent (``run_idempotent``): a copy saves judging, locking and rendering
again, and not that question.
"""

import hashlib
import json

from flask import current_app

from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.redis_client import RedisUnavailable, current_redis


def get(request: IdempotentRequest) -> StoredResponse | None:
    """The answer that this very request was given a short while ago, if Redis still knows."""
    redis = current_redis()
    if redis is None:
        return None
    try:
        kept = redis.call(lambda client: client.get(_name(request)))
    except RedisUnavailable:
        return None
    if kept is None:
        return None
    try:
        database, fingerprint, status, body = json.loads(kept)
    except (ValueError, TypeError):  # not written by us, or by another release
        return None
    if (database, fingerprint) != (_database(), request.fingerprint):
        return None
    return StoredResponse(status, body, replayed=True)


def put(request: IdempotentRequest, response: StoredResponse) -> None:
    """Keep a copy of an answer that is committed and final. Not to be called inside a transaction."""
    redis = current_redis()
    if redis is None:
        return
    ttl_seconds = current_app.config["SETTINGS"].idempotency_cache_ttl_seconds
    copy = json.dumps([_database(), request.fingerprint, response.status, response.body])
    try:
        redis.call(lambda client: client.set(_name(request), copy, ex=ttl_seconds))
    except RedisUnavailable:
        return  # the breaker has said so; the row in the database is what counts


def _name(request: IdempotentRequest) -> str:
    return f"payment:idempotency:{request.user_id}:{request.key}"


def _database() -> str:
    """Tells copies of one database from those of another that shares the same Redis."""
    return hashlib.sha256(current_app.config["SETTINGS"].database_url.encode()).hexdigest()[:16]
