"""Disputes over HTTP. They are answered at the gateway; here they are shown, and block refunds."""

from typing import Any

from flask import Response

from payments_app.accounts.auth import authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.api.blueprint import Blueprint
from payments_app.api.cursors import paginated_response, read_cursor
from payments_app.api.serializer import text_renderer
from payments_app.disputes import schemas
from payments_app.payments import disputes
from payments_app.payments.disputes import DisputeFilter

blueprint = Blueprint("disputes", __name__, url_prefix="/api/v1/disputes", description="Money that banks take back")

_render = text_renderer(schemas.Dispute())


@blueprint.route("")
@authenticated(Role.ADMIN, scope=Scope.PAYMENTS_READ)
@blueprint.arguments(schemas.DisputeListQuery, location="query")
@blueprint.success_response(200, schemas.Dispute, many=True, headers=("Link",))
@blueprint.problems(401, 403, 422, 429, 503)
def list_disputes(query: dict[str, Any], caller: Caller) -> Response:  # noqa: ARG001  # any admin
    """Disputes and inquiries of patients' banks, newest first.

    An `inquiry` takes no money and blocks nothing. While a dispute is `needs_response` or `under_review`, and once it
    is `lost`, nothing of its payment can be refunded (409 `payment-disputed`).
    """
    position = read_cursor("disputes", query)
    shown = DisputeFilter(
        status=query.get("status"),
        payment_id=query.get("payment_id"),
        before_id=position[0] if position else None,
        per_page=query["per_page"],
    )
    return paginated_response(
        disputes.list_page(shown),
        kind="disputes",
        query=query,
        render=_render,
        position=lambda dispute: [dispute.id],
    )
