"""Refunds over HTTP."""

from typing import Any

from flask import Response, current_app

from payments_app import money
from payments_app.accounts.auth import authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.api import examples
from payments_app.api.blueprint import Blueprint, ok
from payments_app.api.cursors import paginated_response, read_cursor
from payments_app.api.serializer import renderer, text_renderer
from payments_app.gateways.references import require_comparable
from payments_app.idempotency.headers import is_key_given
from payments_app.payments.http import build_change, etag, respond
from payments_app.refunds import repository, schemas, service
from payments_app.refunds.http import (
    render_existing_refund,
    render_existing_rejected,
    render_refund,
    render_rejected,
)
from payments_app.refunds.repository import RefundFilter, RefundRequest
from payments_app.refunds.service import terms_of

blueprint = Blueprint("refunds", __name__, url_prefix="/api/v1/payments", description="Refund payments")
refunds_blueprint = Blueprint(
    "all_refunds", __name__, url_prefix="/api/v1/refunds", description="Refunds: look, approve, send by hand"
)

_render_details = renderer(schemas.RefundDetails())
_render_as_text = text_renderer(schemas.RefundDetails())


@blueprint.route("/<id:payment_id>/refund", methods=["POST"])
@authenticated(Role.ADMIN, scope=Scope.REFUNDS_WRITE, view_compares_user=True)
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
    is not known yet, or that people have to act first: another admin approves a refund that is `requested`
    (`REFUND_APPROVAL_ABOVE`), and staff send the money of one `by_hand`. The same key returns the present outcome, and
    nothing is sent again. 402 means that the gateway declined it, or that it was rejected or not sent: another attempt
    needs another key.
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
    return respond(service.refund(change, refund_request, terms=terms_of(settings), render=render_refund))


@refunds_blueprint.route("")
@authenticated(Role.ADMIN, scope=Scope.PAYMENTS_READ)
@refunds_blueprint.arguments(schemas.RefundListQuery, location="query")
@refunds_blueprint.success_response(200, schemas.RefundDetails, many=True, headers=("Link",))
@refunds_blueprint.problems(401, 403, 422, 429, 503)
def list_refunds(query: dict[str, Any], caller: Caller) -> Response:  # noqa: ARG001  # any admin
    """Refunds, newest first. To be sent by staff: `status=pending&by_hand=true`; to be approved: `status=requested`."""
    position = read_cursor("refunds", query)
    conditions = {name: value for name, value in query.items() if name != "cursor"}
    return paginated_response(
        repository.list_page(RefundFilter(**conditions, before_id=position[0] if position else None)),
        kind="refunds",
        query=query,
        render=_render_as_text,
        position=lambda refund: [refund.id],
    )


@refunds_blueprint.route("/<id:refund_id>")
@authenticated(Role.ADMIN, scope=Scope.PAYMENTS_READ)
@refunds_blueprint.without_parameters
@refunds_blueprint.success_response(200, schemas.RefundDetails, headers=("ETag",))
@refunds_blueprint.problems(401, 403, 404, 422, 429, 503)
def show_refund(refund_id: int, caller: Caller) -> Response:  # noqa: ARG001  # any admin
    """A refund. The ETag is its payment's: every change of a refund is one of its payment."""
    refund = repository.get(refund_id)
    return ok(_render_details(refund), message="OK", headers={"ETag": etag(refund.payment.version)})


@refunds_blueprint.route("/<id:refund_id>/settle", methods=["POST"])
@authenticated(Role.ADMIN, scope=Scope.REFUNDS_WRITE)
@refunds_blueprint.arguments(schemas.RefundSettle, example=examples.SETTLE_BODY)
@refunds_blueprint.idempotent
@refunds_blueprint.conditional
@refunds_blueprint.success_response(200, schemas.RefundedOrExistingPayment, headers=("ETag",))
@refunds_blueprint.problems(400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503, examples=examples.SETTLE)
def settle_refund(body: dict[str, Any], refund_id: int, caller: Caller) -> Response:
    """Record that staff have sent the money of a refund by hand, with the reference of the transfer.

    The same transfer again is a retry. One transfer returns the money of one refund: its reference is unique for each
    gateway and payment method, in any spelling.
    """
    refund = repository.get(refund_id)
    require_comparable(refund.gateway, body["reference"], field="reference")
    change = build_change(
        "settle-refund",
        refund.payment_id,
        {**body, "refund_id": refund_id},
        caller,
        render_current=render_existing_refund,
    )
    return respond(service.settle_by_hand(change, refund_id, body["reference"], render=render_refund))


@refunds_blueprint.route("/<id:refund_id>/approve", methods=["POST"])
@authenticated(Role.ADMIN, scope=None)
@refunds_blueprint.arguments(schemas.RefundApprove, required=False, example=examples.EMPTY_BODY)
@refunds_blueprint.idempotent
@refunds_blueprint.conditional
@refunds_blueprint.success_response(200, schemas.RefundedOrExistingPayment, headers=("ETag",))
@refunds_blueprint.success_response(202, schemas.RefundedPayment, headers=("ETag", "Retry-After"))
@refunds_blueprint.problems(400, 401, 402, 403, 404, 409, 412, 413, 415, 422, 429, 503, examples=examples.APPROVE)
def approve_refund(body: dict[str, Any], refund_id: int, caller: Caller) -> Response:
    """Approve a refund that another admin requested, and send it. The response is as that of the refund itself."""
    refund = repository.get(refund_id)
    change = build_change(
        "approve-refund",
        refund.payment_id,
        {**body, "refund_id": refund_id},
        caller,
        render_current=render_existing_refund,
        replays_current_state=True,
    )
    lease_seconds = current_app.config["SETTINGS"].refund_lease_seconds
    return respond(service.approve(change, refund_id, lease_seconds=lease_seconds, render=render_refund))


@refunds_blueprint.route("/<id:refund_id>/reject", methods=["POST"])
@authenticated(Role.ADMIN, scope=None)
@refunds_blueprint.arguments(schemas.RefundReject, example=examples.REJECT_BODY)
@refunds_blueprint.idempotent
@refunds_blueprint.conditional
@refunds_blueprint.success_response(200, schemas.RefundedOrExistingPayment, headers=("ETag",))
@refunds_blueprint.problems(400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503, examples=examples.REJECT)
def reject_refund(body: dict[str, Any], refund_id: int, caller: Caller) -> Response:
    """Reject a refund that another admin requested: it fails with this reason, and its amount is free again."""
    refund = repository.get(refund_id)
    change = build_change(
        "reject-refund",
        refund.payment_id,
        {**body, "refund_id": refund_id},
        caller,
        render_current=render_existing_rejected,
    )
    return respond(service.reject(change, refund_id, body["reason"], render=render_rejected))
