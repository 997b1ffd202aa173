"""What is counted and timed, for Prometheus. Names follow its conventions: base units, ``_total`` for counters."""

import os

from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

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


def init_app(app: Flask) -> None:
    app.add_url_rule("/metrics", view_func=_show)


def _show() -> Response:
    """All processes' numbers together: each writes its own to files in ``PROMETHEUS_MULTIPROC_DIR``."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it ships half typed
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
