"""What waits for somebody, as numbers for ``/metrics``: asked of the database when Prometheus asks us."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from flask import Flask
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from payments_app import clock
from payments_app.errors import AppError
from payments_app.observability import metrics
from payments_app.payments import review
from payments_app.refunds import repository as refunds

log = logging.getLogger(__name__)

# Seconds that an answer is kept in each process: whoever asks more often than Prometheus does (15 s is usual) costs the
# database nothing, and what waits for people may be known half a minute later.
KEPT_SECONDS = 30

# Seconds that one scrape waits for another's question, well below Prometheus' own patience (10 s): a frozen database
# must not take the other numbers away, nor a thread for each scrape.
WAIT_SECONDS = 2


@dataclass(frozen=True, slots=True)
class BacklogCounts:
    """How much there is to be found out, and to be looked at by staff."""

    open_refunds: int
    reviews: int


class Backlog(Collector):
    """The numbers; none where the database does not answer, because an old number would look like a good one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._look_again_at = 0.0
        self._seen: BacklogCounts | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        waiting = self._waiting()
        yield GaugeMetricFamily(
            "payments_database_up", "Whether the database answered when it was last asked", int(waiting is not None)
        )
        if waiting is None:
            return
        yield GaugeMetricFamily(
            "payments_refunds_open",
            "Refunds, unknown or pending, that nobody is at work on: resume finds out",
            waiting.open_refunds,
        )
        yield GaugeMetricFamily("payments_in_review", "Payments that staff have to look at", waiting.reviews)

    def _waiting(self) -> BacklogCounts | None:
        if not self._lock.acquire(timeout=WAIT_SECONDS):  # one asks, and the others wait for what it hears
            return None
        try:
            if time.monotonic() >= self._look_again_at:
                self._seen = _look()
                self._look_again_at = time.monotonic() + KEPT_SECONDS
            return self._seen
        finally:
            self._lock.release()


def init_app(app: Flask) -> None:
    metrics.add_collector(app, Backlog())


def _look() -> BacklogCounts | None:
    try:
        return BacklogCounts(open_refunds=refunds.count_open(now=clock.now()), reviews=review.count())
    except (AppError, SQLAlchemyError) as error:
        log.warning("The backlog could not be counted: %s", type(error).__name__)
        return None
