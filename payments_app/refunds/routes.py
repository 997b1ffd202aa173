"""Refunds over HTTP."""

from typing import Any

from flask import Response, current_app

from payments_app import money
from payments_app.accounts.auth import authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.api import examples
from payments_app.api.blueprint import Blueprint
from payments_app.idempotency.headers import is_key_given
from payments_app.payments.http import build_change, respond
from payments_app.refunds import schemas, service
from payments_app.refunds.http import render_existing_refund, render_refund
from payments_app.refunds.repository import RefundRequest

blueprint = Blueprint("refunds", __name__, url_prefix="/api/v1/payments", description="Refund payments")


@blueprint.route("/<id:payment_id>/refund", methods=["POST"])
@authenticated(Role.ADMIN, scope=Scope.REFUNDS_WRITE)
@blueprint.arguments(schemas.RefundCreate, required=False, example=examples.REFUND_BODY)
@blueprint.idempotent
@blueprint.conditional
@blueprint.success_response(200, schemas.RefundedOrExistingPayment, headers=("ETag",))
@blueprint.success_response(202, schemas.RefundedPayment, headers=("ETag", "Retry-After"))
@blueprint.problems(400, 401, 402, 403, 404, 409, 412, 413, 415, 422, 429, 503, examples=examples.REFUND)
def refund_payment(body: dict[str, Any], payment_id: int, caller: Caller) -> Response:
    """Refund an amount, or all that can be refunded.

    If the request has no idempotency key, and the same amount of the same payment was requested a short time ago
    (`REFUND_REPEAT_WINDOW`), it is refused as a repetition, unless `allow_repeat` is true. 202 means that the outcome
    is not known yet: the same key returns the present outcome, and nothing is sent again. 402 means that the gateway
    declined it: another attempt needs another key.
    """
    amount_minor = body["amount"]
    expected_refundable_minor = body.pop("expected_refundable", None)
    # A request with a key of its own needs no window: the key identifies a repetition.
    may_repeat = body.pop("allow_repeat", False) or is_key_given(body)
    # As text, so that different notations of one amount have the same fingerprint.
    parameters = {**body, "amount": None if amount_minor is None else money.to_text(amount_minor)}
    change = build_change(
        "refund", payment_id, parameters, caller, render_current=render_existing_refund, replays_current_state=True
    )
    settings = current_app.config["SETTINGS"]
    window_seconds = 0 if may_repeat else settings.refund_repeat_window_seconds
    refund_request = RefundRequest(
        amount_minor,
        body["reason"],
        expected_refundable_minor=expected_refundable_minor,
        new_since=service.repeats_since(change.context.at, window_seconds),
    )
    response = service.refund(change, refund_request, lease_seconds=settings.refund_lease_seconds, render=render_refund)
    return respond(response)
