"""Keyset pagination: a cursor holds the position of the last row, so page 60,000 costs as much as page 1."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import Response, current_app, request
from itsdangerous import BadData, URLSafeSerializer

from payments_app.api.json_response import JsonResponse
from payments_app.errors import ValidationFailed
from payments_app.i18n.messages import N_
from payments_app.pagination import Page

Row = TypeVar("Row")

# What may be another from page to page.
_NO_FILTERS = ("per_page", "cursor")


def read_cursor(kind: str, query: Mapping[str, Any]) -> list[Any] | None:
    """The position in the query's cursor; None without a cursor. ``kind``: the list that it belongs to.

    Raises:
        ValidationFailed: the cursor was not issued by this service for this list with these filters (422).
    """
    cursor = query.get("cursor")
    if cursor is None:
        return None
    return read_position(with_filters(kind, query), cursor, parameter="cursor")


def read_position(kind: str, cursor: str, *, parameter: str) -> list[Any]:
    """The position in a cursor that came as this parameter.

    Raises:
        ValidationFailed: the cursor was not issued by this service for lists of this kind (422).
    """
    try:
        position: list[Any] = _serializer(kind).loads(cursor)
    except BadData:
        raise ValidationFailed({parameter: [N_("Not a cursor of this list.")]}) from None
    return position


def sign_position(kind: str, position: list[Any]) -> str:
    """A cursor for a position. Signed, so that a position that this service never issued is refused."""
    cursor = _serializer(kind).dumps(position)
    return cursor.decode() if isinstance(cursor, bytes) else cursor


def paginated_response(
    page: Page[Row],
    *,
    kind: str,
    query: dict[str, Any],
    render: Callable[[Row], str],
    position: Callable[[Row], list[Any]],
) -> Response:
    """``{"data": [...], "meta": {...}}`` with a ``Link: rel="next"`` (RFC 8288) if there are more rows.

    ``render`` makes the JSON text of a row.
    """
    next_cursor = sign_position(with_filters(kind, query), position(page.rows[-1])) if page.has_more else None
    meta = {"next_cursor": next_cursor, "per_page": query["per_page"]}
    response = JsonResponse(f'{{"data": [{", ".join(map(render, page.rows))}], "meta": {json.dumps(meta)}}}')
    if next_cursor is not None:
        # Only with the parameters that were checked, in the spelling in which they came.
        given = {name: request.args.get(name, value) for name, value in query.items()}
        response.headers["Link"] = f'<{request.path}?{urlencode({**given, "cursor": next_cursor})}>; rel="next"'
    return response


def with_filters(kind: str, query: Mapping[str, Any]) -> str:
    """The kind of list that a cursor belongs to, if the list is filtered."""
    # Signed together with the filters, so that a client that changes a filter between two pages gets an error, and does
    # not miss rows.
    filters = {name: value for name, value in sorted(query.items()) if name not in _NO_FILTERS}
    return f"{kind}?{urlencode(filters)}" if filters else kind


def _serializer(kind: str) -> URLSafeSerializer:
    return URLSafeSerializer(current_app.secret_key or "", salt=f"cursor.{kind}")
