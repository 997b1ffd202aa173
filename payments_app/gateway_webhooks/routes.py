"""Webhook endpoints for gateways."""

from flask import Response, current_app, request

from payments_app import clock
from payments_app.api.blueprint import Blueprint, ok
from payments_app.api.json_body import read_all
from payments_app.errors import Conflict, DatabaseBusy, WebhookNotGenuine, WebhookOfOtherMode
from payments_app.gateway_webhooks import repository, schemas
from payments_app.gateway_webhooks.repository import ReceivedEvent
from payments_app.gateways.base import GatewayName
from payments_app.gateways.stripe.objects import OtherMode, livemode_of
from payments_app.gateways.stripe.webhooks import GatewayEvent, InvalidSignature, read_event
from payments_app.observability import metrics
from payments_app.observability.logging import current_request_id, get_logger
from payments_app.payments.models.event import AuditContext

log = get_logger(__name__)

# Events grow with the metadata, lines and lists of their objects, up to a few hundred KiB. An unsigned body costs one
# hash per secret. deploy/nginx/payments.conf has the same limit.
MAX_BODY_BYTES = 512 * 1024

blueprint = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks", description="Webhooks of payment gateways")


@blueprint.route("/stripe", methods=["POST"])
@blueprint.success_response(200, schemas.Received)
@blueprint.problems(400, 413, 503)
@blueprint.doc(security=[])
def receive_stripe_event() -> Response:
    """Receive a signed event of Stripe. A repeated event has no effect; an event of an unknown shape is stored too.

    After any response other than 200, Stripe sends the event again, for three days.
    """
    settings = current_app.config["SETTINGS"]
    body, signature = read_all(request, max_bytes=MAX_BODY_BYTES), request.headers.get("Stripe-Signature")
    context = AuditContext(f"gateway:{GatewayName.STRIPE}", current_request_id(), clock.now())
    try:
        event = read_event(
            body,
            signature,
            settings.stripe_webhook_secrets,
            livemode=livemode_of(settings.stripe_api_key),
            received_at=context.at,
        )
    except InvalidSignature:
        metrics.WEBHOOK_EVENTS.labels("refused").inc()
        log.warning("Webhook: refused", gateway=GatewayName.STRIPE.value)
        raise WebhookNotGenuine from None
    except OtherMode as error:
        metrics.WEBHOOK_EVENTS.labels("other_mode").inc()
        log.warning("Webhook: other mode", gateway=GatewayName.STRIPE.value, reference=error.reference)
        raise WebhookOfOtherMode from None
    try:
        received = repository.ingest(event, context)
    except Conflict as error:
        # Nothing was stored. The response is 503, not our usual 4xx, because Stripe is to send the event again.
        log.warning("Webhook: not processed", event_id=event.event_id, type=event.type, reason=error.code)
        raise DatabaseBusy from None
    _log_outcome(event, received)
    return ok({"received": True}, message="OK")


def _log_outcome(event: GatewayEvent, received: ReceivedEvent) -> None:
    fields = {"event_id": event.event_id, "type": event.type}
    if not received.is_new:
        metrics.WEBHOOK_EVENTS.labels("known").inc()
        log.info("Webhook: duplicate", **fields, payment_id=received.payment_id)
    elif event.is_readable:
        metrics.WEBHOOK_EVENTS.labels("taken_in").inc()
        log.info("Webhook: processed", **fields, payment_id=received.payment_id)
    else:
        metrics.WEBHOOK_EVENTS.labels("unreadable").inc()
        log.warning("Webhook: unreadable", **fields, payment_id=None)
