"""Payments over HTTP. The decorators of a view state its contract; the repository and the database decide."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from flask import Response, current_app, request

from payments_app import clock, money
from payments_app.accounts.auth import AnyScope, authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.api import examples
from payments_app.api.blueprint import Blueprint, json_response, ok
from payments_app.api.cursors import paginated_response, read_cursor
from payments_app.api.rate_limits import payments_per_user
from payments_app.api.serializer import renderer, text_renderer
from payments_app.consultations import schemas as consultation_schemas
from payments_app.consultations.routes import blueprint as consultations_blueprint
from payments_app.consultations.routes import render_consultation
from payments_app.errors import ActivePaymentExists, Forbidden, ValidationFailed
from payments_app.gateways.base import CheckoutSession
from payments_app.gateways.registry import PaymentMethod, find_method, payment_methods
from payments_app.i18n.locale import reader_language, translate
from payments_app.i18n.messages import N_, LocalizedMessage
from payments_app.idempotency.headers import expected_copy, pop_key
from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.payments import create as creation
from payments_app.payments import queries, repository, review, schemas
from payments_app.payments.cancel import cancel
from payments_app.payments.checkout import checkout
from payments_app.payments.close import close
from payments_app.payments.confirm import PaymentProof, confirm
from payments_app.payments.create_statement import NewPayment
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.http import (
    absolute,
    audit_context_for,
    build_change,
    dump_changed,
    etag,
    render_current_state,
    respond,
    return_url,
)
from payments_app.payments.models.payment import Payment
from payments_app.payments.refresh import refresh
from payments_app.payments.repository import Conditions
from payments_app.payments.sessions import SessionTerms
from payments_app.readiness import requires_readiness

blueprint = Blueprint("payments", __name__, url_prefix="/api/v1/payments", description="Pay a consultation once")
methods_blueprint = Blueprint(
    "payment_methods", __name__, url_prefix="/api/v1/payment-methods", description="Ways to pay"
)

# Made once: marshmallow copies every field whenever a schema is made.
_render_payment = text_renderer(schemas.Payment())
_render_opened = renderer(schemas.Checkout())
_EVENTS, _METHODS = schemas.PaymentEvent(many=True), schemas.PaymentMethod(many=True)

# Methods change with a release or a setting, not during the day.
METHODS_TTL_SECONDS = 3600


@methods_blueprint.route("")
@authenticated(*Role, only_reads=True, scope=AnyScope.ANY)
@methods_blueprint.without_parameters
@methods_blueprint.cacheable
@methods_blueprint.success_response(200, schemas.PaymentMethod, many=True, headers=("ETag", "Vary"))
@methods_blueprint.problems(401, 403, 422, 429, 503)
def list_payment_methods(caller: Caller) -> Response:  # noqa: ARG001  # any authenticated caller
    """The available payment methods. Clients may cache them for an hour, and revalidate with ``If-None-Match``."""
    body = json.dumps({"data": _render_methods(payment_methods()), "meta": {"next_cursor": None}})
    response = Response(body, mimetype="application/json")
    response.vary.add("Accept-Language")
    response.cache_control.private = True
    response.cache_control.max_age = METHODS_TTL_SECONDS
    response.add_etag()
    if "If-Match" not in request.headers:  # meant for changes: here it would turn the list into a 412
        response.make_conditional(request)
    return response


@blueprint.route("", methods=["POST"])
@authenticated(*Role, only_reads=True, scope=None)
@requires_readiness
@payments_per_user(ahead=expected_copy)
@blueprint.arguments(schemas.PaymentCreate, example=examples.CREATE_BODY)
@blueprint.idempotent
@blueprint.success_response(201, schemas.CreatedPayment, headers=("ETag", "Location"), examples=examples.CREATED)
@blueprint.success_response(200, schemas.ExistingPayment, headers=("ETag",))
@blueprint.problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, examples=examples.CREATE)
def create_payment(body: dict[str, Any], caller: Caller) -> Response:
    """Create the payment of a consultation. The same key again returns the same response."""
    key = pop_key(body, caller.user_id)
    settings = current_app.config["SETTINGS"]
    new = NewPayment(
        consultation_id=body["consultation_id"],
        amount_minor=body["amount"],
        currency=settings.payment_currency,
        method=_method_on_offer(body["payment_method"]),
        tax_rate_basis_points=settings.payment_tax_rate_basis_points,
        tax_basis=settings.payment_tax_basis,
    )
    idempotent_request = IdempotentRequest(
        caller, key, "create", {**body, "amount": money.to_text(new.amount_minor)}, render_current_state
    )
    response = creation.create(
        new, caller=caller, request=idempotent_request, context=audit_context_for(caller), render=_render_created
    )
    if response.replayed and settings.idempotency_replay == "conflict":
        payment_id = json.loads(response.body)["data"]["payment_id"]
        raise ActivePaymentExists(
            payment_id=payment_id,
            payment_status=repository.get_status(payment_id),
            headers={"Idempotent-Replayed": "true"},
        )
    return respond(response)


@blueprint.route("")
@authenticated(*Role, scope=Scope.PAYMENTS_READ)
@blueprint.arguments(schemas.PaymentListQuery, location="query")
@blueprint.success_response(200, schemas.Payment, many=True, headers=("Link",))
@blueprint.problems(401, 403, 422, 429, 503)
def list_payments(query: dict[str, Any], caller: Caller) -> Response:
    """Payments, newest first: a patient's own, those of a booking system's consultations, or for an admin all.

    A booking system's consultations are those that it registered; a payer's is that of the link. If several filters
    are given, all of them apply.
    """
    if not caller.is_admin and query.keys() & {"user_id", "patient_email"}:
        raise Forbidden
    position = read_cursor("payments", query)
    conditions = {name: value for name, value in query.items() if name not in ("cursor", "user_id")}
    filters = queries.Filter(
        **conditions,
        patient_id=query.get("user_id"),
        after=(datetime.fromisoformat(position[0]), position[1]) if position else None,
    )
    return paginated_response(
        queries.list_page(filters, caller=caller),
        kind="payments",
        query=query,
        render=_render_payment,
        position=lambda payment: [clock.to_text(payment.created_at), payment.id],
    )


@blueprint.route("/<id:payment_id>")
@authenticated(*Role, scope=Scope.PAYMENTS_READ, view_compares_user=True)
@blueprint.without_parameters
@blueprint.success_response(200, schemas.PaymentDetails, headers=("ETag",))
@blueprint.problems(401, 403, 404, 422, 429, 503)
def show_payment(payment_id: int, caller: Caller) -> Response:
    """A payment with its invoices, tax records and refunds."""
    payment = queries.show(payment_id, caller=caller)
    return ok(_details_renderer()(payment), message="OK", headers={"ETag": etag(payment.version)})


@blueprint.route("/<id:payment_id>/events")
@authenticated(*Role, scope=Scope.PAYMENTS_READ)
@blueprint.without_parameters
@blueprint.success_response(200, schemas.PaymentEvent, many=True)
@blueprint.problems(401, 403, 404, 422, 429, 503)
def list_payment_events(payment_id: int, caller: Caller) -> Response:
    """The audit trail of a payment, oldest first."""
    events = repository.list_events(payment_id, caller=caller)
    return json_response({"data": _EVENTS.dump(events), "meta": {"next_cursor": None}})


@blueprint.route("/<id:payment_id>/checkout", methods=["POST"])
@authenticated(Role.PATIENT, Role.PAYER, scope=None)
@blueprint.arguments(schemas.PaymentCheckout, required=False, example=examples.EMPTY_BODY)
@blueprint.idempotent
@blueprint.success_response(200, schemas.Checkout, headers=("ETag",), examples=examples.CHECKOUT)
@blueprint.problems(400, 401, 403, 404, 409, 413, 415, 422, 502, 503, examples=examples.REFUSED_CHECKOUT)
def open_checkout(body: dict[str, Any], payment_id: int, caller: Caller) -> Response:
    """Open the gateway session by which the patient pays, or return the open one.

    The response has one of ``redirect_url`` (send the patient there), ``client_secret`` (for a form of the page, on the
    patient's device only) and ``instructions``. Neither status nor version of the payment changes.
    """
    change = build_change("checkout", payment_id, body, caller, render_current=render_current_state)
    settings = current_app.config["SETTINGS"]
    terms = SessionTerms(
        language=reader_language(),
        return_url=return_url(),
        describe=_describe,
        lease_seconds=settings.refund_lease_seconds,
        deadlines=Deadlines.at(change.context.at, settings),
    )
    return respond(checkout(change, terms, _render_checkout))


@blueprint.route("/<id:payment_id>/refresh", methods=["POST"])
@authenticated(*Role, only_reads=True, scope=Scope.PAYMENTS_READ)
@blueprint.without_parameters
@blueprint.success_response(200, schemas.ChangedPayment, headers=("ETag",))
@blueprint.problems(401, 403, 404, 422, 429, 503)
def refresh_payment(payment_id: int, caller: Caller) -> Response:
    """Ask the gateway what became of the payment's session, and return the payment as it is then.

    The gateway is asked at most once in 2 seconds for each payment. Otherwise, and if it does not respond, the payment
    is returned as it is. No body and no key: the request has no effect of its own.
    """
    payment = refresh(payment_id, caller=caller, context=audit_context_for(caller))
    return ok(dump_changed(payment), message="OK", headers={"ETag": etag(payment.version)})


@blueprint.route("/<id:payment_id>/confirm", methods=["POST"])
@authenticated(Role.PATIENT, Role.ADMIN, scope=Scope.PAYMENTS_CONFIRM, view_compares_user=True)
@blueprint.arguments(schemas.PaymentConfirm, example=examples.CONFIRM_BODY)
@blueprint.idempotent
@blueprint.conditional
@blueprint.success_response(200, schemas.ChangedOrExistingPayment, headers=("ETag",))
@blueprint.problems(400, 401, 402, 403, 404, 409, 412, 413, 415, 422, 429, 503, examples=examples.CONFIRM)
def confirm_payment(body: dict[str, Any], payment_id: int, caller: Caller) -> Response:
    """Complete a payment with the transaction that paid it, if its gateway confirms the money.

    The same transaction again is a retry.
    """
    change = build_change("confirm", payment_id, body, caller, render_current=render_current_state)
    proof = PaymentProof(body["transaction_id"], body["receipt_url"])
    return respond(
        confirm(change, proof, lambda payment: _render_changed(payment, N_("Payment confirmed successfully")))
    )


@blueprint.route("/<id:payment_id>/cancel", methods=["POST"])
@authenticated(Role.PATIENT, Role.ADMIN, Role.PAYER, scope=None, view_compares_user=True)
@blueprint.arguments(schemas.PaymentCancel, required=False, example=examples.EMPTY_BODY)
@blueprint.idempotent
@blueprint.conditional
@blueprint.success_response(200, schemas.ChangedOrExistingPayment, headers=("ETag",))
@blueprint.problems(400, 401, 403, 404, 409, 412, 413, 415, 422, 503, examples=examples.CANCEL)
def cancel_payment(body: dict[str, Any], payment_id: int, caller: Caller) -> Response:
    """Cancel a pending payment and free its consultation. Its session at the gateway ends first."""
    change = build_change("cancel", payment_id, body, caller, render_current=render_current_state)
    return respond(cancel(change, lambda payment: _render_changed(payment, N_("Payment cancelled"))))


@blueprint.route("/<id:payment_id>/resolve-review", methods=["POST"])
@authenticated(Role.ADMIN, scope=None)
@blueprint.arguments(schemas.ReviewResolve, required=False, example=examples.EMPTY_BODY)
@blueprint.success_response(200, schemas.ChangedPayment, headers=("ETag",))
@blueprint.problems(400, 401, 403, 404, 409, 413, 415, 422, 503, examples=examples.RESOLVE_REVIEW)
def resolve_review(body: dict[str, Any], payment_id: int, caller: Caller) -> Response:
    """End the review of a payment, after staff have put the problem right; one that needs none stays as it is.

    Money that does not belong to the payment is refunded first (409 ``invalid-transition`` until then).
    """
    conditions = Conditions(expected_version=body.get("expected_version"))
    payment = review.resolve(payment_id, caller=caller, conditions=conditions, context=audit_context_for(caller))
    return ok(dump_changed(payment), message=N_("Review ended"), headers={"ETag": etag(payment.version)})


@consultations_blueprint.route("/<id:consultation_id>/close", methods=["POST"])
@authenticated(Role.ADMIN, Role.BOOKING, scope=Scope.CONSULTATIONS_WRITE)
@consultations_blueprint.arguments(consultation_schemas.ConsultationClose, required=False, example=examples.EMPTY_BODY)
@consultations_blueprint.success_response(200, consultation_schemas.Consultation)
@consultations_blueprint.problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, examples=examples.CLOSE)
def close_consultation(body: dict[str, Any], consultation_id: int, caller: Caller) -> Response:  # noqa: ARG001  # it has no members
    """Close a consultation, so that nobody can pay it any more; one that is closed stays as it is.

    A pending payment is cancelled first, its session at the gateway before it. While money is on its way (409
    ``invalid-transition``) the consultation stays open. What was paid stays paid, for staff to refund.
    """
    consultation = close(consultation_id, caller=caller, context=audit_context_for(caller))
    return ok(render_consultation(consultation), message=N_("Consultation closed"))


def _method_on_offer(code: str) -> PaymentMethod:
    method = find_method(code)
    if method is None:
        raise ValidationFailed(
            {"payment_method": [N_("Not available; GET /api/v1/payment-methods lists the available methods.")]}
        )
    return method


@cache
def _details_renderer() -> Callable[[Any], dict[str, Any]]:
    return renderer(
        schemas.PaymentDetails()
    )  # made on first use: it names the schema of refunds, which is imported later


def _render_methods(offered: Sequence[PaymentMethod]) -> list[dict[str, str]]:
    return [{**method, "name": translate(method["name"])} for method in _METHODS.dump(offered)]


def _render_created(payment: dict[str, Any], invoice: dict[str, Any]) -> StoredResponse:
    body = {"data": schemas.created_data(payment, invoice), "message": translate(N_("Payment created successfully"))}
    return StoredResponse(201, json.dumps(body))


def _render_changed(payment: Payment, message: str) -> StoredResponse:
    return StoredResponse(200, json.dumps({"data": dump_changed(payment), "message": translate(message)}))


def _describe(consultation_id: int) -> str:
    return translate(LocalizedMessage("Consultation %(id)s", id=consultation_id))


class _Checkout(NamedTuple):
    """The members of ``schemas.Checkout``; of what the patient needs to pay, those that are None are left out."""

    gateway: str
    reference: str
    expires_at: datetime
    redirect_url: str | None
    client_secret: str | None
    instructions: str | None
    payment: Payment


def _render_checkout(payment: Payment, session: CheckoutSession, ends_at: datetime) -> StoredResponse:
    shown = _Checkout(
        gateway=payment.gateway,
        reference=session.reference,
        expires_at=ends_at,
        redirect_url=None if session.redirect_url is None else absolute(session.redirect_url),
        client_secret=session.client_secret,
        # The clinic's own instructions have no translation, and stay as they are.
        instructions=None if session.instructions is None else translate(session.instructions),
        payment=payment,
    )
    data = {name: value for name, value in _render_opened(shown).items() if value is not None}
    return StoredResponse(200, json.dumps({"data": data, "message": "OK"}), store_body=False)
