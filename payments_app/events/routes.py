"""The feed over HTTP."""

from datetime import datetime
from typing import Any

from flask import Response

from payments_app import clock
from payments_app.accounts.auth import authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, Scope
from payments_app.api.blueprint import Blueprint, json_response
from payments_app.api.cursors import read_position, sign_position
from payments_app.events import feed, schemas
from payments_app.events.repository import FeedFilter, Position

blueprint = Blueprint("events", __name__, url_prefix="/api/v1/events", description="The feed of events of all payments")

_KIND = "events"
# Before the first event.
_BEGINNING = [0]


@blueprint.route("")
@authenticated(Role.ADMIN, Role.BOOKING, scope=Scope.EVENTS_READ)
@blueprint.arguments(schemas.FeedQuery, location="query")
@blueprint.response(200, schemas.Feed)
@blueprint.doc(operationId="read_feed")
@blueprint.problems(401, 403, 410, 422, 429, 503)
def read_feed(query: dict[str, Any], caller: Caller) -> Response:
    """Committed events in an order that never changes, oldest first: an admin's all, a booking system's own.

    Keep `meta.next_cursor`, and send it as `after` the next time. It is there at the end of the feed too. It moves past
    events that `types` leaves out, so a page may be empty although `has_more` is true. With `wait` a request at the end
    of the feed waits for an event. 410 `cursor-lost`: the database was restored from a backup; read the feed again from
    its beginning.
    """
    shown = FeedFilter(
        after=_place(query),
        limit=query["limit"],
        types=query["types"],
        registered_by=None if caller.is_admin else caller.user_id,
    )
    page = feed.read(shown, wait_seconds=query["wait"])
    end = _BEGINNING if page.end is None else [page.end.number, page.end.event_id, clock.to_text(page.end.created_at)]
    return json_response(
        {
            "data": [schemas.render_event(event) for event in page.events],
            "meta": {"next_cursor": sign_position(_KIND, end), "has_more": page.has_more},
        }
    )


def _place(query: dict[str, Any]) -> Position | None:
    if "after" not in query:
        return None
    place = read_position(_KIND, query["after"], parameter="after")
    if place == _BEGINNING:
        return None
    number, event_id, created_at = place
    return Position(number, event_id, datetime.fromisoformat(created_at))
