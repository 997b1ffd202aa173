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
from payments_app.api.rate_counts import Counts, LimitReached, Rate, Usage

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

    def close(self, *, counts: bool) -> None:
        if self.is_open:
            self.is_open = False
            self.usage = _current_counts().leave(self.key, self.rate, elsewhere=self.usage, counts=counts)


def init_app(app: Flask) -> None:
    """Set up the limits. While Redis is down, read-only or full, each process counts for itself."""
    app.extensions["rate_limits"] = Counts()
    app.after_request(_count)
    app.teardown_request(_count_the_rest)


def _limited(
    rate: Callable[[Settings], str], *, key: Callable[[], str], counts: Callable[[Response], bool]
) -> Callable[[View[Result]], View[Result]]:
    """Limit the responses for which ``counts`` is true. ``key``: what is counted together.

    Raises:
        TooManyRequests: the limit is reached (429), with Retry-After.
    """

    def decorated(view: View[Result]) -> View[Result]:
        @functools.wraps(view)
        def wrapper(*args: object, **kwargs: object) -> Result:
            settings: Settings = current_app.config["SETTINGS"]
            if settings.ratelimit_enabled:
                _pass(key(), _parsed(rate(settings)), counts)
            return view(*args, **kwargs)

        return wrapper

    return decorated


def _pass(key: str, rate: Rate, counts: Callable[[Response], bool]) -> None:
    passages: list[_Passage] = g.setdefault("rate_limits", [])
    try:
        usage = _current_counts().enter(key, rate)
    except LimitReached as reached:
        passages.append(_Passage(key, rate, counts, reached.usage, is_open=False))
        raise TooManyRequests(retry_after=reached.retry_seconds) from reached
    passages.append(_Passage(key, rate, counts, usage, is_open=True))


def _payer() -> str:
    return f"payments:user:{g.caller.user_id}" if g.caller.link_id is None else f"payments:link:{g.caller.link_id}"


# New payments per user. A replay is not counted. A payment link has a count of its own: its holder cannot use up the
# patient's.
payments_per_user = _limited(
    lambda settings: settings.ratelimit_payments,
    key=_payer,
    counts=lambda response: "Idempotent-Replayed" not in response.headers,
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
    for passage in passages:
        passage.close(counts=passage.counts(response))
    if passages:
        nearest = min(passages, key=lambda passage: passage.remaining)
        response.headers["X-RateLimit-Limit"] = str(nearest.rate.amount)
        response.headers["X-RateLimit-Remaining"] = str(nearest.remaining)
        response.headers["X-RateLimit-Reset"] = str(math.ceil(time.time() + nearest.usage.seconds_left))
    return response


def _count_the_rest(_error: BaseException | None) -> None:
    """A request that ended without a response counts: its outcome is not known."""
    for passage in g.get("rate_limits", []):
        passage.close(counts=True)


def _current_counts() -> Counts:
    counts: Counts = current_app.extensions["rate_limits"]
    return counts


@lru_cache(maxsize=64)
def _parsed(rate: str) -> Rate:
    """Of a setting such as ``10 per minute``, which config.py has checked."""
    amount, _, unit = rate.split()
    return Rate(int(amount), _SECONDS_PER[unit])
