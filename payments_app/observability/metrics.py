"""Metrics for Prometheus. Names follow its conventions: base units, ``_total`` for counters.

Every label has a few fixed values: none comes from a request's content. ``docs/observability.md`` explains each metric.
"""

from flask import Flask, Response, current_app
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.registry import Collector

from payments_app.observability.shared_values import LostCounts, SharedValue, shared

# prometheus_client makes an object of this class for each number of a metric, and looks the class up here each time, so
# that another one can be set. Its own keep a number for one process only, or in files (see shared_memory.py).
values.ValueClass = SharedValue

HTTP_REQUESTS = Counter(
    "payments_http_requests_total", "Requests served, by route, method and status", ["route", "method", "status"]
)
HTTP_REQUEST_SECONDS = Histogram(
    "payments_http_request_duration_seconds",
    "Seconds from the request's arrival in the app to its response",
    ["route", "method"],
    # From a read by key (some milliseconds), over delays that a person notices (0.25 s and more), to three attempts at
    # a gateway (30 s).
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
QUEUE_SECONDS = Histogram(
    "payments_queue_seconds",
    "Seconds from nginx passing a request on (X-Request-Start) to its beginning in the app",
    # From a free thread (a millisecond), over a burst (a second), to nginx's patience (60 s). 15 is where requests are
    # refused (api/queue_time.py).
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60),
)
QUEUE_REFUSALS = Counter("payments_queue_refusals_total", "Requests refused because they waited too long for a thread")
PAYMENTS_CREATED = Counter("payments_created_total", "Payments created, by method", ["method"])
DUPLICATES_STOPPED = Counter(
    "payments_duplicates_stopped_total",
    "Requests that would have had an effect twice, by the layer that stopped them",
    ["layer"],
)
VERSION_CONFLICTS = Counter(
    "payments_version_conflicts_total", "Changes based on an outdated version, by how it was detected", ["cause"]
)
REFUNDS = Counter("payments_refunds_total", "Outcomes of refunds; one refund may have several", ["outcome"])
DISPUTE_EVENTS = Counter(
    "payments_dispute_events_total", "Statuses that disputes reached; one dispute may reach several", ["status"]
)
WEBHOOK_EVENTS = Counter("payments_webhook_events_total", "Webhook events received, by outcome", ["outcome"])
# Exported with 0 from the start: each of these triggers an alert, and Prometheus cannot see an increase of a counter
# that first appears with 1.
for outcome in ("other_mode", "unreadable", "not_followed"):
    WEBHOOK_EVENTS.labels(outcome)
LOG_LINES_DROPPED = Counter(
    "payments_log_lines_dropped_total", "Log lines dropped because standard error or output was not read fast enough"
)
API_KEYS_REFUSED = Counter(
    "payments_api_keys_refused_total", "Requests with an API key that is not valid, by reason", ["reason"]
)
PAYMENT_LINKS = Counter("payments_links_total", "Payment links, by what happened to them", ["outcome"])
for status in ("inquiry", "inquiry_closed", "needs_response", "under_review", "won", "lost"):
    DISPUTE_EVENTS.labels(status)
LOCK_WAIT_SECONDS = Histogram(
    "payments_lock_wait_seconds",
    "Seconds spent waiting for a Redis lock, by outcome",
    ["outcome"],
    # From a free lock (one round trip) to the maximum wait that the settings allow (5 s).
    buckets=(0.001, 0.005, 0.02, 0.1, 0.3, 1, 2, 5, 10),
)
REDIS_BREAKER_OPENINGS = Counter(
    "payments_redis_breaker_openings_total", "How often the circuit breaker for Redis opened"
)
REDIS_BREAKER_OPEN = Gauge(
    "payments_redis_breaker_open", "Processes that currently skip Redis", multiprocess_mode="livesum"
)
DB_STATEMENTS_CUT = Counter(
    "payments_db_statements_cut_total",
    "Statements that the database did not answer in time, so that we cut the connection",
)
GATEWAY_CALLS_IN_FLIGHT = Gauge(
    "payments_gateway_calls_in_flight",
    "Requests that are in calls to a gateway, by gateway",
    ["gateway"],
    multiprocess_mode="livesum",
)
GATEWAY_REFUSALS = Counter(
    "payments_gateway_refusals_total",
    "Requests that were refused before a call to their gateway, by gateway and reason",
    ["gateway", "reason"],
)
GATEWAY_BREAKER_OPENINGS = Counter(
    "payments_gateway_breaker_openings_total", "How often the circuit breaker of a gateway opened", ["gateway"]
)
GATEWAY_BREAKER_OPEN = Gauge(
    "payments_gateway_breaker_open",
    "Processes that currently do not call a gateway, because it is silent",
    ["gateway"],
    multiprocess_mode="livesum",
)
DB_CONNECTIONS_IN_USE = Gauge(
    "payments_db_connections_in_use", "Database connections currently in use", multiprocess_mode="livesum"
)
DB_CONNECTIONS_MAX = Gauge(
    "payments_db_connections_max",
    "Maximum number of database connections, summed over the processes that have opened one",
    multiprocess_mode="livesum",
)


def init_app(app: Flask) -> None:
    app.extensions["metrics"] = CollectorRegistry()
    add_collector(app, LostCounts())
    app.add_url_rule("/metrics", view_func=_show)


def add_collector(app: Flask, collector: Collector) -> None:
    """Add metrics to ``/metrics`` that are queried at each scrape, and not counted by each process."""
    app.extensions["metrics"].register(collector)


def _show() -> Response:
    # Of all processes together in gunicorn, of this one elsewhere.
    body = generate_latest(shared() or REGISTRY) + generate_latest(current_app.extensions["metrics"])
    return Response(body, content_type=CONTENT_TYPE_LATEST)
