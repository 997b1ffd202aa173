"""Where gateways tell us what happened."""

from flask import Response, current_app, request

from payments_app import clock, metrics
from payments_app.api.blueprint import Blueprint, success
from payments_app.api.json_body import read_all
from payments_app.errors import Conflict, DatabaseBusy, WebhookNotGenuine
from payments_app.gateways.base import GatewayName
from payments_app.gateways.stripe_webhooks import GatewayEvent, NotGenuine, read_event
from payments_app.logs import current_request_id, event_log
from payments_app.payments.events import Deed
from payments_app.webhooks import repository, schemas
from payments_app.webhooks.repository import TakenIn

log = event_log(__name__)

blueprint = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks", description="What gateways tell us")


@blueprint.route("/stripe", methods=["POST"])
@blueprint.success_response(200, schemas.Received)
@blueprint.problems(400, 413, 503)
@blueprint.doc(security=[])
def receive_stripe_event() -> Response:
    """Take a signed event of Stripe's in; the same one again has no effect.

    Any answer but 200 makes Stripe send it again, for three days.
    """
    secrets = current_app.config["SETTINGS"].stripe_webhook_secrets
    try:
        event = read_event(read_all(request), request.headers.get("Stripe-Signature"), secrets)
    except NotGenuine:
        metrics.WEBHOOK_EVENTS.labels("refused").inc()
        log.warning("Webhook: refused", gateway=GatewayName.STRIPE.value)
        raise WebhookNotGenuine from None
    try:
        taken_in = repository.take_in(event, Deed(f"gateway:{GatewayName.STRIPE}", current_request_id(), clock.now()))
    except Conflict as error:
        # Nothing was taken in, and Stripe sends it again: what a 4xx is to us, is nothing to Stripe.
        log.warning("Webhook: not taken in", event_id=event.event_id, type=event.type, reason=error.code)
        raise DatabaseBusy from None
    _tell(event, taken_in)
    return success({"received": True}, message="OK")


def _tell(event: GatewayEvent, taken_in: TakenIn) -> None:
    outcome, happened = ("taken_in", "Webhook: taken in") if taken_in.is_new else ("known", "Webhook: known already")
    metrics.WEBHOOK_EVENTS.labels(outcome).inc()
    log.info(happened, event_id=event.event_id, type=event.type, payment_id=taken_in.payment_id)
