"""``/healthz`` and ``/readyz`` for monitoring and load balancers, without a token."""

from flask import Blueprint, Response

from payments_app.api.blueprint import json_response
from payments_app.health.checks import gateway_states, redis_fault, required_checks
from payments_app.readiness import current_readiness

blueprint = Blueprint("health", __name__)

_NO_STORE = {"Cache-Control": "no-store"}


@blueprint.get("/healthz")
def show_health() -> Response:
    """The process responds. Nothing else is checked: a missing database is no reason to restart the process."""
    return json_response({"status": "ok"}, headers=_NO_STORE)


@blueprint.get("/readyz")
def show_readiness() -> Response:
    """Whether payments are accepted. They are if Redis takes no writes or a gateway is silent; the status is then
    ``degraded``.

    Raises:
        NotReady: a check failed; ``data.failed`` names it (503).
    """
    readiness = current_readiness()
    readiness.require()
    required = {name: "degraded" if name in readiness.degraded else "ok" for name in required_checks()}
    parts = {**required, "redis": "degraded" if redis_fault() else "ok", **gateway_states()}
    status = "degraded" if "degraded" in parts.values() else "ok"
    return json_response({"status": status, "parts": parts}, headers=_NO_STORE)
