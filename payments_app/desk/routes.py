"""What the page of the front desk reads. What staff do there, they do by the endpoints of payments and refunds."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response, current_app

from payments_app import clock
from payments_app.accounts.auth import authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role
from payments_app.api.blueprint import Blueprint, ok
from payments_app.api.cursors import paginated_response, read_cursor
from payments_app.api.serializer import text_renderer
from payments_app.desk import queries, schemas
from payments_app.desk.queries import DeskFilter, Queue
from payments_app.payments.models.status import PaymentStatus

blueprint = Blueprint("desk", __name__, url_prefix="/api/v1/desk", description="What the front desk shows to staff")

_render = text_renderer(schemas.DeskPayment())


@blueprint.route("/payments")
@authenticated(Role.ADMIN, scope=None)
@blueprint.arguments(schemas.DeskListQuery, location="query")
@blueprint.success_response(200, schemas.DeskPayment, many=True, headers=("Link",))
@blueprint.problems(401, 403, 422, 503)
def list_desk_payments(query: dict[str, Any], caller: Caller) -> Response:  # noqa: ARG001  # any admin
    """Payments with their patients and consultations, newest first, for staff who search."""
    position = read_cursor("desk", query)
    created_from, created_to = _bounds(query.get("day"), current_app.config["SETTINGS"].clinic_timezone)
    shown = DeskFilter(
        search=query.get("search"),
        payment_id=query.get("payment_id"),
        status=PaymentStatus(query["status"]) if "status" in query else None,
        payment_method=query.get("payment_method"),
        created_from=created_from,
        created_to=created_to,
        queue=Queue(query["queue"]) if "queue" in query else None,
        after=(datetime.fromisoformat(position[0]), position[1]) if position else None,
        per_page=query["per_page"],
    )
    return paginated_response(
        queries.list_page(shown),
        kind="desk",
        query=query,
        render=_render,
        position=lambda row: [clock.to_text(row.payment.created_at), row.payment.id],
    )


@blueprint.route("/queues")
@authenticated(Role.ADMIN, scope=None)
@blueprint.without_parameters
@blueprint.success_response(200, schemas.DeskQueues)
@blueprint.problems(401, 403, 422, 503)
def count_desk_queues(caller: Caller) -> Response:  # noqa: ARG001  # any admin
    """How many payments wait for staff in each queue."""
    return ok({str(queue): number for queue, number in queries.count_queues().items()}, message="OK")


def _bounds(day: date | None, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    """The first moment of a day of the clinic, and the first one after it."""
    if day is None:
        return None, None
    first, after = (datetime.combine(each, time(), tzinfo=zone).astimezone(UTC) for each in (day, day + timedelta(1)))
    return first, after
