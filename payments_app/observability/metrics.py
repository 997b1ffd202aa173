"""What is counted and timed, for Prometheus. Names follow its conventions: base units, ``_total`` for counters.

Every label has few values, known beforehand: none is taken from what a stranger sends. ``docs/observability.md`` says
what each number means.
"""

import os

from flask import Flask, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

HTTP_REQUESTS = Counter(
    "payments_http_requests_total", "Requests that were answered, by what was asked for", ["route", "method", "status"]
)
HTTP_REQUEST_SECONDS = Histogram(
    "payments_http_request_duration_seconds",
    "Time from the app's taking a request in to its having the answer",
    ["route", "method"],
    # From a read by key (some milliseconds), over what a person feels (0.25 s and more), and a gateway's three attempts
    # (30 s), to whatever is worse than all that.
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
PAYMENTS_CREATED = Counter("payments_created_total", "Payments that were made", ["method"])
DUPLICATES_STOPPED = Counter(
    "payments_duplicates_stopped_total",
    "Requests that would have done something twice, by what stopped them",
    ["layer"],
)
VERSION_CONFLICTS = Counter(
    "payments_version_conflicts_total", "Changes from a state that was no longer so, by how it was seen", ["cause"]
)
REFUNDS = Counter("payments_refunds_total", "What became of refunds; one may pass through several", ["outcome"])
WEBHOOK_EVENTS = Counter("payments_webhook_events_total", "Webhook events, by what became of them", ["outcome"])
# From the start on: of a number that is first seen at 1 Prometheus knows no rise, and each of these is worth an alert.
for outcome in ("other_mode", "unreadable"):
    WEBHOOK_EVENTS.labels(outcome)
PAYMENT_LINKS = Counter("payments_links_total", "Payment links, by what happened to them", ["outcome"])
LOCK_WAIT_SECONDS = Histogram(
    "payments_lock_wait_seconds",
    "Time spent waiting for a Redis lock, by what became of it",
    ["outcome"],
    # From a lock that was free (a round trip) to one that was waited for as long as the settings allow (5 s).
    buckets=(0.001, 0.005, 0.02, 0.1, 0.3, 1, 2, 5, 10),
)
REDIS_BREAKER_OPENINGS = Counter("payments_redis_breaker_openings_total", "How often Redis was found to be away")
REDIS_BREAKER_OPEN = Gauge(
    "payments_redis_breaker_open", "Processes that go on without Redis at present", multiprocess_mode="livesum"
)
DB_CONNECTIONS_IN_USE = Gauge(
    "payments_db_connections_in_use", "Database connections that work at present", multiprocess_mode="livesum"
)
DB_CONNECTIONS_MAX = Gauge(
    "payments_db_connections_max",
    "Database connections that the processes may open, of those that have opened any",
    multiprocess_mode="livesum",
)


def init_app(app: Flask) -> None:
    app.extensions["metrics"] = CollectorRegistry()
    app.add_url_rule("/metrics", view_func=_show)


def add_collector(app: Flask, collector: Collector) -> None:
    """Have numbers in ``/metrics`` that are looked up when it is asked for, and not counted by each process."""
    app.extensions["metrics"].register(collector)


def _show() -> Response:
    body = _counted() + generate_latest(current_app.extensions["metrics"])
    return Response(body, content_type=CONTENT_TYPE_LATEST)


def _counted() -> bytes:
    """All processes' numbers together: each writes its own to files in ``PROMETHEUS_MULTIPROC_DIR``."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it ships half typed
    return generate_latest(registry)
