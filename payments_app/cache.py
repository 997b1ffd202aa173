"""JSON texts that are kept for a while: in Redis where there is one, else in the process."""

import json
import time
from collections.abc import Callable

from flask import Flask, current_app

from payments_app.redis_client import RedisUnavailable, current_redis


def init_app(app: Flask) -> None:
    app.extensions["text_cache"] = {}


def cached_json(name: str, *, ttl_seconds: int, make: Callable[[], str]) -> str:
    """The text of that name, made anew when none is kept. Never to be called inside a transaction."""
    redis = current_redis()
    if redis is None:
        return _kept_here(name, ttl_seconds, make)
    try:
        kept = redis.call(lambda client: client.get(name))
        if kept is not None and _is_json(kept):
            return str(kept)
        text = make()
        redis.call(lambda client: client.set(name, text, ex=ttl_seconds))
    except RedisUnavailable:
        return _kept_here(name, ttl_seconds, make)
    return text


def _is_json(kept: str | bytes) -> bool:
    try:
        json.loads(kept)
    except ValueError:  # whoever wrote that, it was not us
        return False
    return True


def _kept_here(name: str, ttl_seconds: int, make: Callable[[], str]) -> str:
    here: dict[str, tuple[float, str]] = current_app.extensions["text_cache"]
    ends_at, text = here.get(name, (0.0, ""))
    if time.monotonic() >= ends_at:
        text = make()
        here[name] = (time.monotonic() + ttl_seconds, text)
    return text
