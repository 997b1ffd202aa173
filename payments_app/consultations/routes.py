"""Consultations over HTTP."""

from typing import Any

from flask import Response, current_app, url_for

from payments_app.accounts.auth import authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.api import examples
from payments_app.api.blueprint import Blueprint, ok
from payments_app.api.cursors import paginated_response, read_cursor
from payments_app.api.serializer import renderer, text_renderer
from payments_app.consultations import repository, schemas
from payments_app.i18n.messages import N_

blueprint = Blueprint("consultations", __name__, url_prefix="/api/v1/consultations", description="Consultations")
render_consultation = renderer(schemas.Consultation())
_render_as_text = text_renderer(schemas.Consultation())


@blueprint.route("")
@authenticated(*Role, scope=Scope.CONSULTATIONS_READ)
@blueprint.arguments(schemas.ConsultationListQuery, location="query")
@blueprint.success_response(200, schemas.Consultation, many=True, headers=("Link",))
@blueprint.problems(401, 403, 422, 429, 503)
def list_consultations(query: dict[str, Any], caller: Caller) -> Response:
    """Consultations with fee and active payment: a patient's own, a booking system's own, or for an admin all.

    A booking system's own are those that it registered; a payer's is that of the link.
    """
    position = read_cursor("consultations", query)
    page = repository.list_page(
        caller=caller,
        after_id=position[0] if position else 0,
        per_page=query["per_page"],
        reference=query.get("reference"),
    )
    return paginated_response(
        page,
        kind="consultations",
        query=query,
        render=_render_as_text,
        position=lambda consultation: [consultation.id],
    )


@blueprint.route("/<id:consultation_id>")
@authenticated(*Role, scope=Scope.CONSULTATIONS_READ)
@blueprint.without_parameters
@blueprint.success_response(200, schemas.Consultation)
@blueprint.problems(401, 403, 404, 422, 429, 503)
def show_consultation(consultation_id: int, caller: Caller) -> Response:
    """One consultation with fee and active payment."""
    consultation = repository.get(consultation_id, caller=caller)
    return ok(render_consultation(consultation), message="OK")


@blueprint.route("/<id:consultation_id>", methods=["PUT"])
@authenticated(Role.ADMIN, Role.BOOKING, scope=Scope.CONSULTATIONS_WRITE)
@blueprint.arguments(schemas.ConsultationPut, example=examples.PUT_CONSULTATION_BODY)
@blueprint.success_response(200, schemas.Consultation)
@blueprint.success_response(201, schemas.Consultation, headers=("Location",))
@blueprint.problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, examples=examples.PUT_CONSULTATION)
def put_consultation(body: dict[str, Any], consultation_id: int, caller: Caller) -> Response:
    """Register a consultation, or replace its data.

    The patient named by ``patient`` is added if nobody has the e-mail address. A patient who is added cannot log in
    before a password is set.
    """
    registration = schemas.registration(body, currency=current_app.config["SETTINGS"].payment_currency)
    consultation, is_new = repository.put(consultation_id, registration, caller=caller)
    location = url_for("consultations.show_consultation", consultation_id=consultation_id)
    return ok(
        render_consultation(consultation),
        message=N_("Consultation registered") if is_new else N_("Consultation up to date"),
        status=201 if is_new else 200,
        headers={"Location": location} if is_new else None,
    )
