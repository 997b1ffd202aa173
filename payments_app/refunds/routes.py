"""Returning money over HTTP."""

from typing import Any

from flask import Response, current_app

from payments_app import money
from payments_app.accounts.callers import Caller
from payments_app.accounts.models import Role
from payments_app.accounts.tokens import authenticated
from payments_app.api import examples
from payments_app.api.blueprint import Blueprint
from payments_app.payments.exchange import change_of, respond
from payments_app.refunds import process, schemas
from payments_app.refunds.answers import render_existing_refund, render_refund
from payments_app.refunds.repository import Wish

blueprint = Blueprint("refunds", __name__, url_prefix="/api/v1/payments", description="Returning money")


@blueprint.route("/<id:payment_id>/refund", methods=["POST"])
@authenticated(Role.ADMIN)
@blueprint.arguments(schemas.RefundCreate, required=False, example=examples.REFUND_BODY)
@blueprint.idempotent
@blueprint.conditional
@blueprint.success_response(200, schemas.Refunded, schemas.ExistingRefund, headers=("ETag",))
@blueprint.success_response(202, schemas.Refunded, headers=("ETag", "Retry-After"))
@blueprint.problems(400, 401, 402, 403, 404, 409, 412, 413, 415, 422, 503, such_as=examples.REFUND)
def refund_payment(body: dict[str, Any], payment_id: int, caller: Caller) -> Response:
    """Return an amount, or all that is left.

    202 while the gateway has not said what became of it; the same key tells its present outcome, and nothing is sent
    again. 402 once the gateway has declined it: another attempt needs another key.
    """
    amount_minor = body["amount"]
    # As text: the key knows amounts however they were written.
    asked = {**body, "amount": None if amount_minor is None else money.to_text(amount_minor)}
    wanted = change_of("refund", payment_id, asked, caller, revive=render_existing_refund, follows=True)
    answer = process.refund(
        wanted,
        Wish(amount_minor, body["reason"]),
        lease_seconds=current_app.config["SETTINGS"].refund_lease_seconds,
        render=render_refund,
    )
    return respond(answer)
