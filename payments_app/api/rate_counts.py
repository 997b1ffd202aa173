"""How often something was done within a window of time: counted in this process, and in Redis for all processes.

Each process always counts for itself, so no state of Redis lets more through than the limit in each process. Redis adds
the counts of the other processes.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from payments_app.redis_client import Command

# Seconds that a request waits if it may pass only once the outcome of others is known. They take milliseconds; this is
# for a slow database, and short enough that the client gets an answer before it gives up.
WAIT_SECONDS = 2

# Seconds after which a client that has waited in vain should try again: the others are still at work.
RETRY_SECONDS = 1

# Windows in memory at which those that are over are removed: a few hundred kilobytes.
PRUNE_AT = 1_000

_PREFIX = "payment:rate:"

# A script, because a key that expired between two commands would be made anew without an end.
_COUNT = """
local count = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  left = tonumber(ARGV[1])
  redis.call('PEXPIRE', KEYS[1], left)
end
return {count, left}
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``amount`` within ``seconds``."""

    amount: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What was counted in a window, and the seconds until it ends; 0 before anything was counted."""

    counted: int
    seconds_left: float


class LimitReached(Exception):
    """Nothing more is let through for ``retry_seconds``."""

    def __init__(self, usage: Usage, retry_seconds: float) -> None:
        super().__init__()
        self.usage = usage
        self.retry_seconds = max(1, math.ceil(retry_seconds))


@dataclass(slots=True)
class _Window:
    """It begins with the first count. ``undecided``: let through, and not known yet whether they count."""

    counted: int = 0
    undecided: int = 0
    ends_at: float = 0  # of the monotonic clock


class Counts:
    """The windows of one app in this process. Every ``enter`` that returns is followed by one ``leave``."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._windows: dict[str, _Window] = {}
        self._prune_at = PRUNE_AT

    def enter(self, key: str, rate: Rate, *, read: Callable[[], Usage]) -> Usage:
        """Let one through, and return what all processes have counted, which ``read`` reads from Redis.

        If it depends on the outcome of others whether there is room, wait for them: a replay, or a login that succeeds,
        uses nothing up.

        Raises:
            LimitReached: here, or by the counts of all processes in Redis.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            elsewhere = read()  # not under the lock: it may take as long as Redis' timeout
            if elsewhere.counted >= rate.amount:
                raise LimitReached(elsewhere, elsewhere.seconds_left)
            with self._changed:
                now = time.monotonic()
                window = self._current(key, now)
                if window.counted >= rate.amount:
                    usage = _usage_of(window, now)
                    raise LimitReached(usage, usage.seconds_left)
                if max(window.counted, elsewhere.counted) + window.undecided < rate.amount:
                    window.undecided += 1
                    return elsewhere
                if now >= deadline:
                    raise LimitReached(Usage(rate.amount, RETRY_SECONDS), RETRY_SECONDS)
                self._changed.wait(deadline - now)

    def leave(self, key: str, rate: Rate, *, elsewhere: Usage, counts: bool) -> Usage:
        """The outcome of one that was let through is known. Returns the higher of both counts.

        ``elsewhere``: what all processes have counted, this one included if it ``counts``.
        """
        with self._changed:
            now = time.monotonic()
            window = self._current(key, now)
            window.undecided -= 1
            if counts:
                if window.counted == 0:
                    window.ends_at = now + rate.seconds
                window.counted += 1
                if elsewhere.counted:  # another process may have begun the window: it ends here when it ends there
                    window.ends_at = min(window.ends_at, now + elsewhere.seconds_left)
            usage = _usage_of(window, now)
            if window.counted == window.undecided == 0:
                del self._windows[key]
            self._changed.notify_all()
        return max(usage, elsewhere, key=lambda used: used.counted)

    def _current(self, key: str, now: float) -> _Window:
        """The window of this moment. Under the lock."""
        if len(self._windows) >= self._prune_at:
            kept = {name: window for name, window in self._windows.items() if window.undecided or now < window.ends_at}
            self._windows, self._prune_at = kept, max(PRUNE_AT, 2 * len(kept))
        window = self._windows.setdefault(key, _Window())
        if now >= window.ends_at:
            window.counted = 0
        return window


def _usage_of(window: _Window, now: float) -> Usage:
    return Usage(window.counted, max(0.0, window.ends_at - now) if window.counted else 0.0)


def reading(key: str) -> list[Command]:
    """The commands that read what all processes have counted; ``usage_in_redis`` takes their results."""
    return [("GET", _PREFIX + key), ("PTTL", _PREFIX + key)]


def counting(key: str, rate: Rate) -> Command:
    """The command that counts one for all processes; ``usage_in_redis`` takes its result."""
    return ("EVAL", _COUNT, 1, _PREFIX + key, rate.seconds * 1000)


def usage_in_redis(result: list[Any] | None) -> Usage:
    """What all processes have counted; nothing if Redis does not say."""
    if result is None or result[0] is None:
        return Usage(0, 0)
    try:
        counted, left_ms = int(result[0]), int(result[1])
    except ValueError:  # the key has no number, so another program has written it
        return Usage(0, 0)
    # A key without an end is not ours, or somebody has changed it: it must not refuse for ever.
    return Usage(counted, left_ms / 1000) if left_ms >= 0 else Usage(0, 0)
