"""Webhook endpoints over HTTP."""

import json
from datetime import timedelta
from typing import Any

from flask import Response, url_for

from payments_app import clock
from payments_app.accounts.auth import authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.api import examples
from payments_app.api.blueprint import Blueprint, ok
from payments_app.api.cursors import paginated_response, read_cursor
from payments_app.i18n.messages import N_
from payments_app.webhook_endpoints import repository, schemas
from payments_app.webhook_endpoints.repository import DeliveryFilter, NewEndpoint

blueprint = Blueprint(
    "webhook_endpoints",
    __name__,
    url_prefix="/api/v1/webhook-endpoints",
    description="Who is told of events, by signed webhooks",
)


@blueprint.route("", methods=["POST"])
@authenticated(Role.ADMIN, scope=Scope.WEBHOOKS_WRITE)
@blueprint.arguments(schemas.WebhookEndpointCreate, example=examples.WEBHOOK_ENDPOINT_BODY)
@blueprint.success_response(201, schemas.NewWebhookEndpoint, headers=("Location",))
@blueprint.problems(400, 401, 403, 413, 415, 422, 429, 503)
def create_webhook_endpoint(body: dict[str, Any], caller: Caller) -> Response:
    """Have events sent to a URL: those that get a position from now on. The secret is shown only here."""
    made = repository.create(NewEndpoint(**body), caller=caller)
    location = url_for("webhook_endpoints.show_webhook_endpoint", endpoint_id=made.id)
    return ok(
        schemas.render_endpoint(made, now=clock.now(), with_secret=True),
        message=N_("Webhook endpoint created"),
        status=201,
        headers={"Location": location},
    )


@blueprint.route("")
@authenticated(Role.ADMIN, scope=Scope.WEBHOOKS_WRITE)
@blueprint.arguments(schemas.EndpointListQuery, location="query")
@blueprint.success_response(200, schemas.WebhookEndpoint, many=True, headers=("Link",))
@blueprint.problems(401, 403, 422, 429, 503)
def list_webhook_endpoints(query: dict[str, Any], caller: Caller) -> Response:  # noqa: ARG001  # any admin
    """All webhook endpoints without their secrets, newest first."""
    position = read_cursor("webhook_endpoints", query)
    now = clock.now()
    return paginated_response(
        repository.list_page(before_id=position[0] if position else None, per_page=query["per_page"]),
        kind="webhook_endpoints",
        query=query,
        render=lambda endpoint: json.dumps(schemas.render_endpoint(endpoint, now=now)),
        position=lambda endpoint: [endpoint.id],
    )


@blueprint.route("/<id:endpoint_id>")
@authenticated(Role.ADMIN, scope=Scope.WEBHOOKS_WRITE)
@blueprint.without_parameters
@blueprint.success_response(200, schemas.WebhookEndpoint)
@blueprint.problems(401, 403, 404, 422, 429, 503)
def show_webhook_endpoint(endpoint_id: int, caller: Caller) -> Response:  # noqa: ARG001  # any admin
    """One webhook endpoint without its secret."""
    return ok(schemas.render_endpoint(repository.get(endpoint_id), now=clock.now()), message="OK")


@blueprint.route("/<id:endpoint_id>", methods=["PATCH"])
@authenticated(Role.ADMIN, scope=Scope.WEBHOOKS_WRITE)
@blueprint.arguments(schemas.WebhookEndpointPatch, required=False, example=examples.PATCH_WEBHOOK_ENDPOINT_BODY)
@blueprint.success_response(200, schemas.WebhookEndpoint)
@blueprint.problems(400, 401, 403, 404, 413, 415, 422, 429, 503)
def change_webhook_endpoint(body: dict[str, Any], endpoint_id: int, caller: Caller) -> Response:
    """Change the members that are sent. Attempts that begin afterwards follow the change.

    Disabled, an endpoint hears nothing, and what was not delivered is given up. Enabled again, it hears of events that
    get a position after that.
    """
    endpoint = repository.change(endpoint_id, body, caller=caller)
    return ok(schemas.render_endpoint(endpoint, now=clock.now()), message=N_("Webhook endpoint up to date"))


@blueprint.route("/<id:endpoint_id>", methods=["DELETE"])
@authenticated(Role.ADMIN, scope=Scope.WEBHOOKS_WRITE)
@blueprint.without_parameters
@blueprint.response(204)
@blueprint.doc(operationId="delete_webhook_endpoint")
@blueprint.problems(401, 403, 404, 422, 429, 503)
def delete_webhook_endpoint(endpoint_id: int, caller: Caller) -> Response:
    """Delete a webhook endpoint with its deliveries. An attempt that has begun ends, and no other begins."""
    repository.delete(endpoint_id, caller=caller)
    return Response(status=204)


@blueprint.route("/<id:endpoint_id>/rotate-secret", methods=["POST"])
@authenticated(Role.ADMIN, scope=Scope.WEBHOOKS_WRITE)
@blueprint.arguments(schemas.SecretRotation, required=False, example=examples.ROTATE_SECRET_BODY)
@blueprint.success_response(200, schemas.NewWebhookEndpoint)
@blueprint.problems(400, 401, 403, 404, 413, 415, 422, 429, 503)
def rotate_webhook_secret(body: dict[str, Any], endpoint_id: int, caller: Caller) -> Response:
    """Replace the secret by a new one, which is shown only here. For the overlap, both sign.

    Give the new one to the receiver before the overlap ends. If the old one was stolen, send `"overlap": 0`.
    """
    overlap = timedelta(seconds=body["overlap"])
    endpoint = repository.rotate_secret(endpoint_id, overlap=overlap, caller=caller)
    shown = schemas.render_endpoint(endpoint, now=clock.now(), with_secret=True)
    return ok(shown, message=N_("Secret replaced"))


@blueprint.route("/<id:endpoint_id>/ping", methods=["POST"])
@authenticated(Role.ADMIN, scope=Scope.WEBHOOKS_WRITE)
@blueprint.without_parameters
@blueprint.success_response(202, schemas.WebhookDelivery)
@blueprint.problems(401, 403, 404, 409, 422, 429, 503, examples=examples.OF_DISABLED_ENDPOINT)
def ping_webhook_endpoint(endpoint_id: int, caller: Caller) -> Response:
    """Have the sender send a ping, which has no position and is not in the feed. Its delivery shows what came of it."""
    ping = repository.ping(endpoint_id, caller=caller)
    return ok(schemas.render_delivery(ping), message=N_("Ping is sent soon"), status=202)


@blueprint.route("/<id:endpoint_id>/deliveries")
@authenticated(Role.ADMIN, scope=Scope.WEBHOOKS_WRITE)
@blueprint.arguments(schemas.DeliveryListQuery, location="query")
@blueprint.success_response(200, schemas.WebhookDelivery, many=True, headers=("Link",))
@blueprint.problems(401, 403, 404, 422, 429, 503)
def list_webhook_deliveries(query: dict[str, Any], endpoint_id: int, caller: Caller) -> Response:  # noqa: ARG001  # any admin
    """Deliveries to an endpoint, newest first. Those that were delivered more than 30 days ago are deleted."""
    kind = f"webhook_deliveries.{endpoint_id}"
    position = read_cursor(kind, query)
    shown = DeliveryFilter(
        status=query.get("status"), before_id=position[0] if position else None, per_page=query["per_page"]
    )
    return paginated_response(
        repository.list_deliveries(endpoint_id, shown),
        kind=kind,
        query=query,
        render=lambda delivery: json.dumps(schemas.render_delivery(delivery)),
        position=lambda shown: [shown.delivery.id],
    )


@blueprint.route("/<id:endpoint_id>/deliveries/<id:delivery_id>/retry", methods=["POST"])
@authenticated(Role.ADMIN, scope=Scope.WEBHOOKS_WRITE)
@blueprint.without_parameters
@blueprint.success_response(202, schemas.WebhookDelivery)
@blueprint.problems(401, 403, 404, 409, 422, 429, 503, examples=examples.OF_DISABLED_ENDPOINT)
def retry_webhook_delivery(endpoint_id: int, delivery_id: int, caller: Caller) -> Response:
    """Have a delivery sent soon, whether it waits, was given up or was delivered. The receiver knows it by its
    `webhook-id`, which is the same again.
    """
    delivery = repository.retry(endpoint_id, delivery_id, caller=caller)
    return ok(schemas.render_delivery(delivery), message=N_("Delivery is sent soon"), status=202)
