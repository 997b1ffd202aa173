"""Gauges of open refunds and payments in review, for ``/metrics``: queried from the database at each scrape."""

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
from payments_app.payments import disputes, review
from payments_app.refunds.repository import count_open

log = logging.getLogger(__name__)

# Seconds that each process caches the counts, so that frequent scrapes cost the database nothing (Prometheus usually
# scrapes every 15 s). People process these rows, so a count that is half a minute old is good enough.
CACHE_SECONDS = 30

# Seconds that one scrape waits for another's query, well below Prometheus' timeout (10 s): a frozen database must not
# take away the other metrics, nor occupy a thread for each scrape.
WAIT_SECONDS = 2


@dataclass(frozen=True, slots=True)
class BacklogCounts:
    """``open_refunds``: refunds whose outcome is to be found out. ``reviews``: payments that staff must review."""

    open_refunds: int
    reviews: int
    open_disputes: int


class Backlog(Collector):
    """The gauges; absent while the database does not respond, because an old value would look like a current one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expires_at = 0.0
        self._counts: BacklogCounts | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        counts = self._current_counts()
        yield GaugeMetricFamily(
            "payments_database_up",
            "1 if the database responded to the last query for the backlog, else 0",
            int(counts is not None),
        )
        if counts is None:
            return
        yield GaugeMetricFamily(
            "payments_refunds_open",
            "Refunds with status unknown or pending that no process is working on; payments resume looks them up",
            counts.open_refunds,
        )
        yield GaugeMetricFamily("payments_in_review", "Payments that staff must review", counts.reviews)
        yield GaugeMetricFamily(
            "payments_disputes_open", "Disputes and inquiries that the bank has not decided", counts.open_disputes
        )

    def _current_counts(self) -> BacklogCounts | None:
        if not self._lock.acquire(timeout=WAIT_SECONDS):  # one thread queries, the others wait
            return None
        try:
            if time.monotonic() >= self._expires_at:
                self._counts = _count()
                self._expires_at = time.monotonic() + CACHE_SECONDS
            return self._counts
        finally:
            self._lock.release()


def init_app(app: Flask) -> None:
    metrics.add_collector(app, Backlog())


def _count() -> BacklogCounts | None:
    try:
        return BacklogCounts(
            open_refunds=count_open(now=clock.now()), reviews=review.count(), open_disputes=disputes.count_open()
        )
    except (AppError, SQLAlchemyError) as error:
        log.warning("Backlog could not be counted: %s", type(error).__name__)
        return None
