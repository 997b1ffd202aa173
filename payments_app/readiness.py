"""Cached readiness check; views that create payments require it.

The health package decides what is checked. Each process keeps the result for a short while.
"""

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flask import current_app

from payments_app.errors import NotReady

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Failed checks: name and reason. The reasons are for operators; clients see only the names.
Faults = Mapping[str, str]

# Seconds. The checks take milliseconds, so one request in ten seconds can afford them. They begin early enough that
# even slow ones (2 s to connect, 6 s for a statement) end before the result that other requests use is too old.
REFRESH_AFTER_SECONDS = 10

# Seconds. No payment is created with a result older than this: the request waits for a new one.
OLDEST_SECONDS = 30

# Seconds that a request waits for the checks of another thread. They take milliseconds if the database is healthy. A
# frozen database neither answers nor refuses: without this limit, all threads would wait for it, and /healthz too.
WAIT_SECONDS = 2

_TIMED_OUT: Faults = {"database": f"did not answer within {WAIT_SECONDS} s"}


@dataclass(frozen=True, slots=True)
class ReadinessResult:
    """``at``: the monotonic time when the checks began; the result is no older than that.

    ``degraded``: what an operator should know although the service is ready; empty if there are faults.
    """

    faults: Faults
    at: float
    degraded: Faults = field(default_factory=dict)

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.at

    @property
    def is_fresh(self) -> bool:
        """A result with faults is never fresh: the service recovers as soon as the faults are gone."""
        return not self.faults and self.age_seconds < REFRESH_AFTER_SECONDS


class Readiness:
    """One thread at a time runs the checks. Others use the previous result, or wait if it is too old."""

    def __init__(self, check: Callable[[], Faults], find_degraded: Callable[[], Faults] = dict) -> None:
        self._check = check
        self._find_degraded = find_degraded
        self._check_lock = threading.Lock()
        self._result = ReadinessResult({}, at=-math.inf)

    def run_checks(self) -> Faults:
        """The failed checks; empty if the service is ready. Do not call this inside a transaction."""
        result = self._result
        if result.is_fresh:
            return result.faults
        is_too_old = result.age_seconds >= OLDEST_SECONDS
        if not self._check_lock.acquire(timeout=WAIT_SECONDS if is_too_old else 0):
            if is_too_old and self._result is result:  # the first thread that times out publishes it
                self._publish(ReadinessResult(_TIMED_OUT, at=time.monotonic()))
            return self._result.faults
        try:
            if self._result is result:  # no other thread has run the checks meanwhile
                at = time.monotonic()
                faults = self._check()
                self._publish(ReadinessResult(faults, at, {} if faults else self._find_degraded()))
            return self._result.faults
        finally:
            self._check_lock.release()

    @property
    def degraded(self) -> Faults:
        """What the last run of the checks found that an operator should know; by check name."""
        return self._result.degraded

    def require(self) -> None:
        """Check that the service is ready.

        Raises:
            NotReady: a check failed (503); ``failed`` names it.
        """
        faults = self.run_checks()
        if faults:
            raise NotReady(failed=list(faults))

    def invalidate(self) -> None:
        """Drop the result, so that the checks run again before the next payment."""
        self._result = ReadinessResult({}, at=-math.inf)

    def _publish(self, result: ReadinessResult) -> None:
        previous, self._result = self._result, result
        if result.faults and result.faults != previous.faults:
            log.error("not ready: %s", "; ".join(f"{name}: {why}" for name, why in result.faults.items()))
        if previous.faults and not result.faults:
            log.warning("ready again")
        if result.degraded and result.degraded != previous.degraded:
            log.warning("degraded: %s", "; ".join(f"{name}: {why}" for name, why in result.degraded.items()))


def current_readiness() -> Readiness:
    readiness: Readiness = current_app.extensions["readiness"]
    return readiness


def requires_readiness(view: Callable[..., Result]) -> Callable[..., Result]:
    """Run the view only if the readiness checks passed: the database itself must refuse a second payment.

    Raises:
        NotReady: a check failed (503).
    """

    @functools.wraps(view)
    def wrapper(*args: object, **kwargs: object) -> Result:
        readiness = current_readiness()
        readiness.require()
        try:
            return view(*args, **kwargs)
        except NotReady:  # the statement found the index missing, before the next check did
            readiness.invalidate()
            raise

    return wrapper
