"""Webhook endpoints for gateways."""

from collections.abc import Callable
from typing import TypeVar

from flask import Response, request

from payments_app import clock
from payments_app.api import examples
from payments_app.api.blueprint import Blueprint, ok
from payments_app.api.json_body import read_all
from payments_app.errors import Conflict, DatabaseBusy, GatewayUnavailable, WebhookNotGenuine, WebhookOfOtherMode
from payments_app.gateway_webhooks import repository, schemas
from payments_app.gateway_webhooks.repository import ReceivedEvent
from payments_app.gateways.base import EventSource, GatewayPayment, GatewayRefund, OutcomeUnknown
from payments_app.gateways.events import GatewayDispute, GatewayEvent, InvalidSignature, NotBelieved, OtherMode
from payments_app.gateways.registry import SENDERS_OF_WEBHOOKS, find_event_source
from payments_app.observability import metrics
from payments_app.observability.logging import current_request_id, get_logger
from payments_app.payments.gateway_updates import end_newer_session
from payments_app.payments.models.event import AuditContext

log = get_logger(__name__)

Result = TypeVar("Result")

# Events grow with the metadata, lines and lists of their objects, up to a few hundred KiB. An unsigned body costs one
# hash per secret. deploy/nginx/payments.conf has the same limit.
MAX_BODY_BYTES = 512 * 1024

blueprint = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks", description="Webhooks of payment gateways")


def _view_for(gateway: str) -> Callable[[], Response]:
    def receive_event() -> Response:
        """Store a signed event of the gateway; the same event again has no effect.

        An event of an unknown shape is stored as well. After any response but 200 the gateway sends it again.
        """
        return _receive(gateway)

    receive_event.__name__ = f"receive_{gateway}_event"  # each is an endpoint of its own
    return receive_event


for _name in map(str, SENDERS_OF_WEBHOOKS):
    # Literal paths: an unknown gateway's is a 404 like any other, and a metric has no label of a stranger's making.
    _view = blueprint.doc(security=[])(_view_for(_name))
    _view = blueprint.problems(400, 413, 503, examples=examples.WEBHOOK)(_view)
    _view = blueprint.success_response(200, schemas.Received)(_view)
    blueprint.route(f"/{_name}", methods=["POST"])(_view)


def _receive(gateway: str) -> Response:
    body = read_all(request, max_bytes=MAX_BODY_BYTES)
    context = AuditContext(f"gateway:{gateway}", current_request_id(), clock.now())
    source = find_event_source(gateway)
    if source is None:  # not configured: no signature can be checked
        raise _refused(gateway)
    event = _read(source, gateway, body, context)
    money = _money_returned(source, gateway, event)
    try:
        received = repository.ingest(gateway, event, context, money)
    except Conflict as error:
        # Nothing was stored. The response is 503, not our usual 4xx, because the gateway is to send the event again.
        log.warning("Webhook: not processed", event_id=event.event_id, type=event.type, reason=error.code)
        raise DatabaseBusy from None
    _log_outcome(event, received)
    end_newer_session(received.newer_session, context)
    return ok({"received": True}, message="OK")


def _read(source: EventSource, gateway: str, body: bytes, context: AuditContext) -> GatewayEvent:
    try:
        return _answered(gateway, lambda: source.read_event(body, request.headers, received_at=context.at))
    except InvalidSignature:
        raise _refused(gateway) from None
    except OtherMode as error:
        metrics.WEBHOOK_EVENTS.labels("other_mode").inc()
        log.warning("Webhook: other mode", gateway=gateway, reference=error.reference)
        raise WebhookOfOtherMode from None


def _money_returned(source: EventSource, gateway: str, event: GatewayEvent) -> GatewayPayment | None:
    """What the money was for that a refund returns, by the gateway, if we do not know that money.

    A refund that was made in the gateway's dashboard does not name our payment, and may be told of before its money is.

    Raises:
        GatewayUnavailable, GatewayBusy: as ``_answered`` (503).
    """
    payload = event.payload
    if not isinstance(payload, GatewayRefund) or payload.transaction_id is None:
        return None
    transaction_id = payload.transaction_id
    if repository.is_known(gateway, transaction_id):
        return None
    return _answered(gateway, lambda: source.look_up_money(transaction_id))


def _answered(gateway: str, ask: Callable[[], Result | OutcomeUnknown]) -> Result:
    """The gateway's answer about an event, of which nothing is stored before.

    Raises:
        GatewayUnavailable: the gateway did not answer, and has to send the event again (503).
        GatewayBusy: no place at the gateway, which has to send the event again (503).
    """
    try:
        answer = ask()
    except GatewayUnavailable as refusal:
        reason, error = refusal.code, refusal
    else:
        if not isinstance(answer, OutcomeUnknown):
            return answer
        reason, error = answer.reason, GatewayUnavailable()
    metrics.WEBHOOK_EVENTS.labels("unanswered").inc()
    log.warning("Webhook: unanswered", gateway=gateway, reason=reason)
    raise error


def _refused(gateway: str) -> WebhookNotGenuine:
    metrics.WEBHOOK_EVENTS.labels("refused").inc()
    log.warning("Webhook: refused", gateway=gateway)
    return WebhookNotGenuine()


def _log_outcome(event: GatewayEvent, received: ReceivedEvent) -> None:
    fields = {"event_id": event.event_id, "type": event.type}
    if not received.is_new:
        metrics.WEBHOOK_EVENTS.labels("known").inc()
        log.info("Webhook: duplicate", **fields, payment_id=received.payment_id)
    elif not event.is_followed:
        metrics.WEBHOOK_EVENTS.labels("not_followed").inc()
        log.warning("Webhook: stored, about money and not followed", **fields, payment_id=None)
    elif isinstance(event.payload, GatewayDispute) and received.payment_id is None:
        metrics.WEBHOOK_EVENTS.labels("not_followed").inc()
        log.warning("Webhook: stored, a dispute of unknown money", **fields, reference=event.payload.reference)
    elif isinstance(event.payload, NotBelieved):
        metrics.WEBHOOK_EVENTS.labels("not_believed").inc()
        log.warning("Webhook: not believed", **fields, payment_id=received.payment_id)
    elif event.is_readable:
        metrics.WEBHOOK_EVENTS.labels("taken_in").inc()
        log.info("Webhook: processed", **fields, payment_id=received.payment_id)
    else:
        metrics.WEBHOOK_EVENTS.labels("unreadable").inc()
        log.warning("Webhook: unreadable", **fields, payment_id=None)
