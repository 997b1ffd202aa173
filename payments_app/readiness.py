"""Cached readiness check; views that create payments require it.

The health package decides what is checked. Each process keeps the result for a short while.
"""

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flask import current_app

from payments_app.errors import NotReady

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# What is not in place, by the name of the check, and why. Why is for operators; callers learn the names alone.
Faults = Mapping[str, str]

# Seconds. A look takes milliseconds, so that one request in ten seconds may pay for it; and it begins early enough
# that even a slow one (3 s to connect, 5 s a statement) ends before the verdict that the others go by is too old.
REFRESH_AFTER_SECONDS = 10

# Seconds. No payment is taken on the word of a verdict older than this: whoever comes then waits for a new one.
OLDEST_SECONDS = 30

# Seconds that a caller waits for another's look, which takes milliseconds where the database is well. One that is
# frozen neither answers nor refuses: who waits without limit takes one thread after another away, from /healthz too.
WAIT_SECONDS = 2

_NOBODY_ANSWERED: Faults = {"database": f"did not answer within {WAIT_SECONDS} s"}


@dataclass(frozen=True, slots=True)
class ReadinessResult:
    """``at``: when the look began, by the clock that only runs forward; what was seen is no older."""

    faults: Faults
    at: float

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.at

    @property
    def is_fresh(self) -> bool:
        """A bad one is not kept at all: the service is well again as soon as whatever was wrong is right."""
        return not self.faults and self.age_seconds < REFRESH_AFTER_SECONDS


class Readiness:
    """One thread at a time looks; the others go by the verdict before, while it is young, or else wait a little."""

    def __init__(self, look: Callable[[], Faults]) -> None:
        self._look = look
        self._looking = threading.Lock()
        self._verdict = ReadinessResult({}, at=-math.inf)

    def run_checks(self) -> Faults:
        """What is not in place; empty where all is well. Never to be called inside a transaction."""
        verdict = self._verdict
        if verdict.is_fresh:
            return verdict.faults
        is_too_old = verdict.age_seconds >= OLDEST_SECONDS
        if not self._looking.acquire(timeout=WAIT_SECONDS if is_too_old else 0):
            if is_too_old and self._verdict is verdict:  # of all that waited in vain, the first speaks
                self._pronounce(ReadinessResult(_NOBODY_ANSWERED, at=time.monotonic()))
            return self._verdict.faults
        try:
            if self._verdict is verdict:  # nobody else has looked while this thread waited
                at = time.monotonic()
                self._pronounce(ReadinessResult(self._look(), at))
            return self._verdict.faults
        finally:
            self._looking.release()

    def require(self) -> None:
        """Go on only where everything is in place.

        Raises:
            NotReady: something is not (503).
        """
        faults = self.run_checks()
        if faults:
            raise NotReady(failed=list(faults))

    def invalidate(self) -> None:
        """Look again before the next payment, whatever the verdict was."""
        self._verdict = ReadinessResult({}, at=-math.inf)

    def _pronounce(self, verdict: ReadinessResult) -> None:
        before, self._verdict = self._verdict, verdict
        if verdict.faults and verdict.faults != before.faults:
            log.error("not ready: %s", "; ".join(f"{name}: {why}" for name, why in verdict.faults.items()))
        if before.faults and not verdict.faults:
            log.warning("ready again")


def current_readiness() -> Readiness:
    readiness: Readiness = current_app.extensions["readiness"]
    return readiness


def requires_readiness(view: Callable[..., Result]) -> Callable[..., Result]:
    """Let the view begin only while the database itself is known to refuse a second payment.

    Raises:
        NotReady: it is not (503).
    """

    @functools.wraps(view)
    def wrapper(*args: object, **kwargs: object) -> Result:
        readiness = current_readiness()
        readiness.require()
        try:
            return view(*args, **kwargs)
        except NotReady:  # the statement itself found the index missing, sooner than the next look would have
            readiness.invalidate()
            raise

    return wrapper
