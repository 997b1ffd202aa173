"""For those who watch over the service: is it alive, and may it be given work? At the root, without a token."""

from flask import Blueprint, Response

from payments_app.api.blueprint import json_response
from payments_app.health.checks import CHECKS, redis_state
from payments_app.readiness import current_readiness

blueprint = Blueprint("health", __name__)

_NOT_TO_BE_KEPT = {"Cache-Control": "no-store"}


@blueprint.get("/healthz")
def show_health() -> Response:
    """The process answers; nothing else is looked at, so that nobody restarts it because a database is away."""
    return json_response({"status": "ok"}, headers=_NOT_TO_BE_KEPT)


@blueprint.get("/readyz")
def show_readiness() -> Response:
    """May payments be taken? Without Redis they may, but it is said.

    Raises:
        NotReady: a check failed; ``data.failed`` names it (503).
    """
    current_readiness().require()
    redis = redis_state()
    parts = {**dict.fromkeys(CHECKS, "ok"), "redis": redis}
    return json_response({"status": redis, "parts": parts}, headers=_NOT_TO_BE_KEPT)
