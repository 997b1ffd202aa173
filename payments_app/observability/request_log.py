"""Logs and counts each request, by its route rule and not its path: paths are unbounded and may hold personal data."""

import time
from functools import cache

from flask import Flask, Response, g
from flask.globals import request_ctx
from prometheus_client import Counter, Histogram

from payments_app.observability import metrics
from payments_app.observability.logging import get_logger, set_request_id

log = get_logger(__name__)

# Route and method of requests that match no route, so that clients cannot create labels by made-up paths or methods.
UNKNOWN = "unknown"


def init_app(app: Flask) -> None:
    """Call this before all that registers functions for a request: what is registered first begins first, ends last."""
    app.before_request(_begin)
    app.after_request(_log_request)


def _begin() -> None:
    g.started = time.perf_counter()
    set_request_id()


def _log_request(response: Response) -> Response:
    seconds = time.perf_counter() - g.started
    request = request_ctx.request  # flask.request looks it up anew at each access, in .6 microseconds
    rule, method, status = request.url_rule, request.method, response.status_code
    caller = g.get("caller")
    route = UNKNOWN if rule is None else rule.rule
    label = UNKNOWN if rule is None else method
    _counter(route, label, status).inc()
    _histogram(route, label).observe(seconds)
    log.info(
        "Request",
        user=None if caller is None else caller.user_id,
        route=route,
        method=method,
        status=status,
        ms=round(seconds * 1000, 1),
    )
    return response


# Cached: prometheus_client's labels() takes a lock and builds a tuple for each call.
@cache
def _counter(route: str, method: str, status: int) -> Counter:
    return metrics.HTTP_REQUESTS.labels(route, method, status)


@cache
def _histogram(route: str, method: str) -> Histogram:
    return metrics.HTTP_REQUEST_SECONDS.labels(route, method)
