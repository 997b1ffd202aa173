"""Rate limits of endpoints, by user or by network. ``rate_counts`` counts; docs/rate-limits.md explains them."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import TypeVar

from flask import Flask, Response, current_app, g
from werkzeug.exceptions import TooManyRequests

from config import Settings
from payments_app.api.client_network import client_network
from payments_app.api.rate_counts import Counts, LimitReached, Rate, Usage, counting, reading, usage_in_redis
from payments_app.redis_client import read_ahead, run, run_with_pending

Result = TypeVar("Result")
View = Callable[..., Result]

# Seconds of each unit that a setting may name.
_SECONDS_PER = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


@dataclass(slots=True)
class _Passage:
    """A limit that this request has come to. ``is_open``: let through, and not known yet whether it counts."""

    key: str
    rate: Rate
    counts: Callable[[Response], bool]
    usage: Usage
    is_open: bool

    @property
    def remaining(self) -> int:
        return max(0, self.rate.amount - self.usage.counted)

    def close(self, elsewhere: Usage, *, counts: bool) -> None:
        self.is_open = False
        self.usage = _current_counts().leave(self.key, self.rate, elsewhere=elsewhere, counts=counts)


def init_app(app: Flask) -> None:
    """Set up the limits. While Redis is down, read-only or full, each process counts for itself."""
    app.extensions["rate_limits"] = Counts()
    settings: Settings = app.config["SETTINGS"]
    if settings.ratelimit_enabled or settings.redis_url:  # otherwise there is nothing to count, and nothing to write
        app.after_request(_count)
        app.teardown_request(_count_the_rest)


def _limited(
    rate: Callable[[Settings], str],
    *,
    key: Callable[[], str],
    counts: Callable[[Response], bool],
    ahead: Callable[[], str | None] = lambda: None,
) -> Callable[[View[Result]], View[Result]]:
    """Limit the responses for which ``counts`` is true. ``key``: what is counted together. ``ahead``: another key of
    Redis that this request will read, for the same round trip.

    Raises:
        TooManyRequests: the limit is reached (429), with Retry-After.
    """

    def decorated(view: View[Result]) -> View[Result]:
        @functools.wraps(view)
        def wrapper(*args: object, **kwargs: object) -> Result:
            settings: Settings = current_app.config["SETTINGS"]
            if settings.ratelimit_enabled:
                _pass(key(), _parsed(rate(settings)), counts, ahead())
            return view(*args, **kwargs)

        return wrapper

    return decorated


def _pass(key: str, rate: Rate, counts: Callable[[Response], bool], ahead: str | None) -> None:
    passages: list[_Passage] = g.setdefault("rate_limits", [])
    try:
        usage = _current_counts().enter(key, rate, read=lambda: _read(key, ahead))
    except LimitReached as reached:
        passages.append(_Passage(key, rate, counts, reached.usage, is_open=False))
        raise TooManyRequests(retry_after=reached.retry_seconds) from reached
    passages.append(_Passage(key, rate, counts, usage, is_open=True))


def _read(key: str, ahead: str | None) -> Usage:
    commands = reading(key)
    if ahead is None:
        return usage_in_redis(run(commands))
    *counted, value = run([*commands, ("GET", ahead)])
    read_ahead(ahead, value)
    return usage_in_redis(counted)


def _payer() -> str:
    caller = g.caller
    return f"payments:user:{caller.user_id}" if caller.link_id is None else f"payments:link:{caller.link_id}"


def payments_per_user(ahead: Callable[[], str | None]) -> Callable[[View[Result]], View[Result]]:
    """New payments per user. A replay is not counted. A payment link has a count of its own: its holder cannot use up
    the patient's.
    """
    return _limited(
        lambda settings: settings.ratelimit_payments,
        key=_payer,
        counts=lambda response: "Idempotent-Replayed" not in response.headers,
        ahead=ahead,
    )


# All requests of an API key together, whatever they ask for: a program in a loop must not take the service from people.
requests_per_key = _limited(
    lambda settings: settings.ratelimit_api_keys,
    key=lambda: f"keys:{g.caller.key_id}",
    counts=lambda _response: True,
)

# Failed logins per network and e-mail address. So an attacker elsewhere cannot lock a patient out by guessing, and
# users behind one address, such as a clinic's, do not use up each other's attempts. The view sets ``g.login_email``.
failed_logins = _limited(
    lambda settings: settings.ratelimit_failed_logins,
    key=lambda: f"login:{client_network()}:{g.login_email}",
    counts=lambda response: response.status_code == HTTPStatus.UNAUTHORIZED,  # only a wrong password is 401 here
)

# Failed logins per network: against trying one e-mail address after another.
failed_logins_per_address = _limited(
    lambda settings: settings.ratelimit_failed_logins_per_address,
    key=lambda: f"logins:{client_network()}",
    counts=lambda response: response.status_code == HTTPStatus.UNAUTHORIZED,
)

# Payment links that lead nowhere, per network: the same limit as for failed logins, with a count of its own. A token
# has 256 random bits and cannot be guessed; the limit protects the database from the attempts.
failed_exchanges = _limited(
    lambda settings: settings.ratelimit_failed_logins_per_address,
    key=lambda: f"links:{client_network()}",
    counts=lambda response: response.status_code == HTTPStatus.NOT_FOUND,  # of this one endpoint
)


def _count(response: Response) -> Response:
    """Count the request at each limit that it has passed, and say what is left of the nearest one."""
    passages: list[_Passage] = g.get("rate_limits", [])
    _close(passages, lambda passage: passage.counts(response))
    if passages:
        nearest = min(passages, key=lambda passage: passage.remaining)
        response.headers.add("X-RateLimit-Limit", str(nearest.rate.amount))
        response.headers.add("X-RateLimit-Remaining", str(nearest.remaining))
        response.headers.add("X-RateLimit-Reset", str(math.ceil(time.time() + nearest.usage.seconds_left)))
    return response


def _count_the_rest(_error: BaseException | None) -> None:
    """A request that ended without a response counts: its outcome is not known."""
    _close(g.get("rate_limits", []), lambda _passage: True)


def _close(passages: list[_Passage], counts: Callable[[_Passage], bool]) -> None:
    """Count in Redis, in one round trip with what this request writes there besides; then in this process."""
    ending = [(passage, counts(passage)) for passage in passages if passage.is_open]
    results = iter(run_with_pending([counting(passage.key, passage.rate) for passage, is_one in ending if is_one]))
    for passage, is_one in ending:
        passage.close(usage_in_redis(next(results)) if is_one else passage.usage, counts=is_one)


def _current_counts() -> Counts:
    counts: Counts = current_app.extensions["rate_limits"]
    return counts


@lru_cache(maxsize=64)
def _parsed(rate: str) -> Rate:
    """Of a setting such as ``10 per minute``, which config.py has checked."""
    amount, _, unit = rate.split()
    return Rate(int(amount), _SECONDS_PER[unit])
