"""Looks up the result of a request whose response was lost."""

from flask import Response

from payments_app.accounts.auth import authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.api.blueprint import Blueprint, ok
from payments_app.errors import IdempotencyKeyNotFound
from payments_app.idempotency import repository, schemas
from payments_app.idempotency.headers import is_well_formed

blueprint = Blueprint(
    "idempotency", __name__, url_prefix="/api/v1/idempotency-keys", description="Look up the result of a request"
)


@blueprint.route("/<key:key>")
@authenticated(*Role, scope=Scope.PAYMENTS_READ)
@blueprint.without_parameters
@blueprint.success_response(200, schemas.IdempotencyKey)
@blueprint.problems(401, 403, 404, 422, 429, 503)
def show_idempotency_key(key: str, caller: Caller) -> Response:
    """The result that is committed under one of the caller's keys. Nothing is sent again.

    A payment link gets the keys of its consultation's payments, whether the patient or the link used them.

    404 means that there is no result so far: send the request again with the same key, never with a new one.
    """
    if not is_well_formed(key):
        raise IdempotencyKeyNotFound
    return ok(schemas.IdempotencyKey().dump(repository.get_key(caller, key)), message="OK")
