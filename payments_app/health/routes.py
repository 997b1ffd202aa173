"""``/healthz`` and ``/readyz`` for monitoring and load balancers, without a token."""

from flask import Blueprint, Response

from payments_app.api.blueprint import json_response
from payments_app.health.checks import redis_fault, required_checks
from payments_app.readiness import current_readiness

blueprint = Blueprint("health", __name__)

_NO_STORE = {"Cache-Control": "no-store"}


@blueprint.get("/healthz")
def show_health() -> Response:
    """The process responds. Nothing else is checked: a missing database is no reason to restart the process."""
    return json_response({"status": "ok"}, headers=_NO_STORE)


@blueprint.get("/readyz")
def show_readiness() -> Response:
    """Whether payments are accepted. If Redis takes no writes they are; the status is then ``degraded``.

    Raises:
        NotReady: a check failed; ``data.failed`` names it (503).
    """
    readiness = current_readiness()
    readiness.require()
    degraded = {*readiness.degraded, *(["redis"] if redis_fault() else [])}
    parts = {name: "degraded" if name in degraded else "ok" for name in (*required_checks(), "redis")}
    return json_response({"status": "degraded" if degraded else "ok", "parts": parts}, headers=_NO_STORE)
