"""Payment links over HTTP: for the booking system that makes them, and for the page that opens them."""

from datetime import timedelta
from typing import Any

from flask import Response

from payments_app.accounts import auth
from payments_app.accounts.auth import PAYER_TOKEN_TTL_SECONDS, SCHEME, authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.accounts.schemas import Token
from payments_app.api import examples
from payments_app.api.blueprint import Blueprint, json_response, ok
from payments_app.api.cursors import paginated_response, read_cursor
from payments_app.api.rate_limits import failed_exchanges
from payments_app.api.serializer import text_renderer
from payments_app.errors import NotFound
from payments_app.i18n.messages import N_
from payments_app.observability import metrics
from payments_app.payment_links import address, repository, schemas
from payments_app.payment_links.repository import NewLink

blueprint = Blueprint(
    "payment_links", __name__, url_prefix="/api/v1/consultations", description="Paying without a password"
)
_render = text_renderer(schemas.PaymentLink())
exchange_blueprint = Blueprint(
    "payment_link_exchange", __name__, url_prefix="/api/v1/payment-links", description="Opening a payment link"
)


@blueprint.route("/<id:consultation_id>/links", methods=["POST"])
@authenticated(Role.BOOKING, Role.ADMIN, scope=Scope.LINKS_WRITE)
@blueprint.arguments(schemas.PaymentLinkCreate, required=False, example=examples.LINK_BODY)
@blueprint.success_response(201, schemas.NewPaymentLink)
@blueprint.problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, examples=examples.CREATE_LINK)
def create_payment_link(body: dict[str, Any], consultation_id: int, caller: Caller) -> Response:
    """Make a link by which a patient pays this consultation without a password.

    Each request makes another link, and all of them pay the same consultation once. The address is shown only here.
    """
    new = NewLink(
        consultation_id=consultation_id,
        return_url=body["return_url"],
        lifetime=timedelta(seconds=body["expires_in"]),
    )
    base = address.base_of_request()
    link, token = repository.create(new, caller=caller)
    shown = {"id": link.id, "url": address.of_token(base, token), "expires_at": link.expires_at}
    return ok(schemas.NewPaymentLink().dump(shown), message=N_("Payment link created"), status=201)


@blueprint.route("/<id:consultation_id>/links")
@authenticated(Role.BOOKING, Role.ADMIN, scope=Scope.LINKS_WRITE)
@blueprint.arguments(schemas.LinkListQuery, location="query")
@blueprint.success_response(200, schemas.PaymentLink, many=True, headers=("Link",))
@blueprint.problems(401, 403, 404, 422, 429, 503)
def list_payment_links(query: dict[str, Any], consultation_id: int, caller: Caller) -> Response:
    """The links of a consultation without their addresses, newest first; expired and revoked ones too."""
    position = read_cursor(f"links.{consultation_id}", query)
    page = repository.list_page(
        consultation_id, caller=caller, before_id=position[0] if position else None, per_page=query["per_page"]
    )
    return paginated_response(
        page,
        kind=f"links.{consultation_id}",
        query=query,
        render=_render,
        position=lambda link: [link.id],
    )


@blueprint.route("/<id:consultation_id>/links/<id:link_id>", methods=["DELETE"])
@authenticated(Role.BOOKING, Role.ADMIN, scope=Scope.LINKS_WRITE)
@blueprint.without_parameters
@blueprint.response(204)
@blueprint.doc(operationId="revoke_payment_link")
@blueprint.problems(401, 403, 404, 422, 429, 503)
def revoke_payment_link(consultation_id: int, link_id: int, caller: Caller) -> Response:
    """Revoke a link: from the answer on neither it nor a token that it gave does anything.

    A payment that was made by it stays. 204 also if the link was revoked before.
    """
    repository.revoke(consultation_id, link_id, caller=caller)
    return Response(status=204)


@exchange_blueprint.route("/exchange", methods=["POST"])
@failed_exchanges
@exchange_blueprint.arguments(schemas.PaymentLinkExchange, example=examples.EXCHANGE_BODY)
@exchange_blueprint.response(200, Token)
@exchange_blueprint.doc(operationId="exchange_payment_link", security=[])
@exchange_blueprint.problems(400, 404, 413, 415, 422, 429, 503)
def exchange_payment_link(body: dict[str, str]) -> Response:
    """Exchange the token of a payment link for a bearer token, which pays the link's consultation and nothing else.

    404 for a link that is unknown, expired or revoked. One that has expired and whose consultation has a payment shows
    that payment for 90 more days: the bearer token is then for reading only.
    """
    link = repository.find_by_token(body["token"])
    if link is None:
        metrics.PAYMENT_LINKS.labels("refused").inc()
        raise NotFound(N_("This payment link is not valid; ask the clinic for a new one."))
    metrics.PAYMENT_LINKS.labels("opened").inc()
    token = auth.issue_for_link(
        link_id=link.link_id,
        consultation_id=link.consultation_id,
        return_url=link.return_url,
        read_only=link.read_only,
        patient_id=link.patient_id,
        version=link.token_version,
    )
    return json_response({"token": token, "token_type": SCHEME, "expires_in": PAYER_TOKEN_TTL_SECONDS})
