"""Gauges of refunds that wait and of payments in review, for ``/metrics``: queried from the database at each scrape."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from flask import Flask
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from payments_app import clock
from payments_app.errors import AppError
from payments_app.observability import metrics
from payments_app.payments import disputes, review
from payments_app.refunds.repository import ForPeople, count_for_people, count_open
from payments_app.webhook_endpoints import repository as webhook_endpoints
from payments_app.webhook_endpoints.repository import EndpointCounts

log = logging.getLogger(__name__)

# Seconds that each process caches the counts, so that frequent scrapes cost the database nothing (Prometheus usually
# scrapes every 15 s). People process these rows, so a count that is half a minute old is good enough.
CACHE_SECONDS = 30

# Seconds that one scrape waits for another's query, well below Prometheus' timeout (10 s): a frozen database must not
# take away the other metrics, nor occupy a thread for each scrape.
WAIT_SECONDS = 2


@dataclass(frozen=True, slots=True)
class BacklogCounts:
    """``open_refunds``: refunds whose outcome is to be found out. ``reviews``: payments that staff must review.
    ``unsent_seconds``: the age of the oldest event that an endpoint should have been sent.
    """

    counted_at: datetime
    open_refunds: int
    requested: ForPeople
    to_be_sent: ForPeople
    reviews: int
    open_disputes: int
    endpoints: EndpointCounts
    unsent_seconds: float


class Backlog(Collector):
    """The gauges; absent while the database does not respond, because an old value would look like a current one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expires_at = 0.0
        self._counts: BacklogCounts | None = None

    def collect(self) -> Iterator[Metric]:
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
        yield from _for_people(
            "to_be_sent", "Refunds by hand whose money staff have to send", counts, counts.to_be_sent
        )
        yield from _for_people("requested", "Refunds that wait for another admin's approval", counts, counts.requested)
        yield GaugeMetricFamily("payments_in_review", "Payments that staff must review", counts.reviews)
        yield GaugeMetricFamily(
            "payments_disputes_open", "Disputes and inquiries that the bank has not decided", counts.open_disputes
        )
        yield from _about_webhooks(counts)

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


def _for_people(name: str, meaning: str, counts: BacklogCounts, waiting: ForPeople) -> Iterator[GaugeMetricFamily]:
    yield GaugeMetricFamily(f"payments_refunds_{name}", meaning, waiting.count)
    age = 0.0 if waiting.oldest_at is None else max(0.0, (counts.counted_at - waiting.oldest_at).total_seconds())
    oldest = f"{meaning}: seconds since the oldest of them was requested, 0 if there is none"
    yield GaugeMetricFamily(f"payments_refunds_{name}_oldest_seconds", oldest, age)


def init_app(app: Flask) -> None:
    metrics.add_collector(app, Backlog())


def _about_webhooks(counts: BacklogCounts) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "payments_webhook_attempts", "Attempts to send an event to an endpoint, of all senders", labels=["outcome"]
    )
    attempts.add_metric(["delivered"], counts.endpoints.attempts_delivered)
    attempts.add_metric(["failed"], counts.endpoints.attempts_failed)
    yield attempts
    yield GaugeMetricFamily(
        "payments_webhook_oldest_unsent_seconds",
        "Age of the oldest event that was not yet sent once to an enabled endpoint; 0 if there is none",
        counts.unsent_seconds,
    )
    yield GaugeMetricFamily(
        "payments_webhook_endpoints_failing",
        "Enabled endpoints that did not take the last delivery",
        counts.endpoints.failing,
    )
    yield GaugeMetricFamily(
        "payments_webhook_endpoints_disabled",
        "Endpoints that the sender has disabled: they answered 410, or took nothing for five days",
        counts.endpoints.disabled,
    )


def _count() -> BacklogCounts | None:
    now = clock.now()
    try:
        requested, to_be_sent = count_for_people()
        unsent_since = webhook_endpoints.find_unsent_since()
        return BacklogCounts(
            counted_at=now,
            open_refunds=count_open(now=now),
            requested=requested,
            to_be_sent=to_be_sent,
            reviews=review.count(),
            open_disputes=disputes.count_open(),
            endpoints=webhook_endpoints.count(),
            unsent_seconds=0.0 if unsent_since is None else max(0.0, (now - unsent_since).total_seconds()),
        )
    except (AppError, SQLAlchemyError) as error:
        log.warning("Backlog could not be counted: %s", type(error).__name__)
        return None
