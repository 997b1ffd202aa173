"""Where gateways tell us what happened."""

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

# Events grow with the metadata, lines and lists of their objects, up to a few hundred KiB. A stranger's body costs one
# hash for each secret. deploy/nginx/payments.conf lets as much through.
MOST_BYTES = 512 * 1024

blueprint = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks", description="What gateways tell us")


@blueprint.route("/stripe", methods=["POST"])
@blueprint.success_response(200, schemas.Received)
@blueprint.problems(400, 413, 503)
@blueprint.doc(security=[])
def receive_stripe_event() -> Response:
    """Take a signed event of Stripe's in; the same one again has no effect. One in an unknown shape is kept as well.

    Any answer but 200 makes Stripe send it again, for three days.
    """
    settings = current_app.config["SETTINGS"]
    body, signature = read_all(request, at_most_bytes=MOST_BYTES), request.headers.get("Stripe-Signature")
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
        log.warning("Webhook: of other mode", gateway=GatewayName.STRIPE.value, reference=error.reference)
        raise WebhookOfOtherMode from None
    try:
        taken_in = repository.ingest(event, context)
    except Conflict as error:
        # Nothing was taken in, and Stripe sends it again: what a 4xx is to us, is nothing to Stripe.
        log.warning("Webhook: not taken in", event_id=event.event_id, type=event.type, reason=error.code)
        raise DatabaseBusy from None
    _log_outcome(event, taken_in)
    return ok({"received": True}, message="OK")


def _log_outcome(event: GatewayEvent, taken_in: ReceivedEvent) -> None:
    about = {"event_id": event.event_id, "type": event.type}
    if not taken_in.is_new:
        metrics.WEBHOOK_EVENTS.labels("known").inc()
        log.info("Webhook: known already", **about, payment_id=taken_in.payment_id)
    elif event.is_readable:
        metrics.WEBHOOK_EVENTS.labels("taken_in").inc()
        log.info("Webhook: taken in", **about, payment_id=taken_in.payment_id)
    else:
        metrics.WEBHOOK_EVENTS.labels("unreadable").inc()
        log.warning("Webhook: kept unread", **about, payment_id=None)
