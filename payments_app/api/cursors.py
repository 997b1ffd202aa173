"""Keyset pagination: a cursor holds the position of the last row, so page 60,000 costs as much as page 1."""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import Response, current_app, json, request
from itsdangerous import BadData, URLSafeSerializer

from payments_app.errors import ValidationFailed
from payments_app.i18n.messages import N_
from payments_app.pagination import Page

Row = TypeVar("Row")


def read_cursor(kind: str, cursor: str | None) -> list[Any] | None:
    """The position in a cursor; None without a cursor. ``kind``: the list that it belongs to.

    Raises:
        ValidationFailed: the cursor was not issued by this service for this list (422).
    """
    if cursor is None:
        return None
    try:
        position: list[Any] = _serializer(kind).loads(cursor)
    except BadData:
        raise ValidationFailed({"cursor": [N_("Not a cursor of this list.")]}) from None
    return position


def paginated_response(
    page: Page[Row],
    *,
    kind: str,
    query: dict[str, Any],
    render: Callable[[Row], dict[str, Any]],
    position: Callable[[Row], list[Any]],
) -> Response:
    """``{"data": [...], "meta": {...}}`` with a ``Link: rel="next"`` (RFC 8288) if there are more rows."""
    next_cursor = _serializer(kind).dumps(position(page.rows[-1])) if page.has_more else None
    body = {
        "data": [render(row) for row in page.rows],
        "meta": {"next_cursor": next_cursor, "per_page": query["per_page"]},
    }
    response = Response(json.dumps(body), mimetype="application/json")
    if next_cursor is not None:
        # Only with the parameters that were checked.
        response.headers["Link"] = f'<{request.path}?{urlencode({**query, "cursor": next_cursor})}>; rel="next"'
    return response


def _serializer(kind: str) -> URLSafeSerializer:
    # Signed, so that a position that this service never issued is refused.
    return URLSafeSerializer(current_app.secret_key or "", salt=f"cursor.{kind}")
