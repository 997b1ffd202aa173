"""Shapes of webhook endpoints and of deliveries to them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from flask import current_app
from marshmallow import Schema, ValidationError, fields

from payments_app.api.enums import Enumeration, EnumField
from payments_app.api.fields import (
    Cursor,
    HttpUrl,
    OneOf,
    QueryInteger,
    StorableString,
    StrictBoolean,
    StrictInteger,
    UtcDateTimeField,
)
from payments_app.api.query import Query
from payments_app.api.serializer import renderer
from payments_app.i18n.messages import N_
from payments_app.payments.models.event import EVENT_TYPES
from payments_app.webhook_endpoints import models
from payments_app.webhook_endpoints.models import (
    ALL_TYPES,
    MAX_DESCRIPTION_LENGTH,
    DeliveryError,
    DeliveryStatus,
    DisabledReason,
)
from payments_app.webhook_endpoints.repository import ShownDelivery
from payments_app.webhook_endpoints.targets import UnusableUrl, require_usable

# Seconds for which the secret before it signs too: by default a day, to give receivers the new one.
DEFAULT_OVERLAP, MOST_OVERLAP = (int(span.total_seconds()) for span in (timedelta(days=1), timedelta(days=7)))

DISABLED_REASON = Enumeration.of(
    DisabledReason,
    "by_hand: by its owner; gone: it answered 410; failing: it took nothing for five days.",
)
DELIVERY_STATUS = Enumeration.of(DeliveryStatus, "failed: every attempt failed, or the endpoint was disabled.")
DELIVERY_ERROR = Enumeration.of(DeliveryError, "refused: the answer's status is not 2xx; see docs/webhooks.md.")

_PING = "ping"


class EndpointUrl(HttpUrl):
    """The URL of a receiver: https in production, without a user, and of no address that is known to be private."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        url = super()._deserialize(value, attr, data, **kwargs)
        settings = current_app.config["SETTINGS"]
        try:
            require_usable(url, https_only=settings.is_production, allow_private=settings.webhook_allow_private)
        except UnusableUrl as error:
            raise ValidationError(error.text) from None
        return url


class EventTypeList(fields.List[str]):
    """Names of events; ``*`` stands for all of them."""

    def __init__(self, **kwargs: Any) -> None:
        metadata = {
            "description": "Names of events; `*`: all, also those that are added later.",
            "minItems": 1,
        }
        names = fields.String(validate=OneOf((ALL_TYPES, *EVENT_TYPES)))
        super().__init__(names, validate=_names_some, metadata=metadata, **kwargs)


def _names_some(names: list[str]) -> None:
    if not names:
        raise ValidationError(N_("Must name at least one event, or *."))


class Description(StorableString):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_DESCRIPTION_LENGTH, allow_none=True, **kwargs)


class WebhookEndpointCreate(Schema):
    url = EndpointUrl(required=True)
    types = EventTypeList(load_default=lambda: [ALL_TYPES])
    description = Description(load_default=None)
    is_enabled = StrictBoolean(load_default=True)


class WebhookEndpointPatch(Schema):
    url = EndpointUrl()
    types = EventTypeList()
    description = Description()
    is_enabled = StrictBoolean()


class SecretRotation(Schema):
    overlap = StrictInteger(
        least=0,
        most=MOST_OVERLAP,
        load_default=DEFAULT_OVERLAP,
        metadata={"description": "Seconds for which the secret before it signs too."},
    )


class WebhookEndpoint(Schema):
    id = fields.Integer(required=True)
    # As it was given: its host may be in any script, which a URI's is not, and more is accepted than RFC 3987 allows.
    url = fields.String(required=True)
    types = fields.List(fields.String(), required=True)
    description = fields.String(required=True, allow_none=True)
    is_enabled = fields.Boolean(required=True)
    disabled_at = UtcDateTimeField(required=True, allow_none=True)
    disabled_reason = EnumField(DISABLED_REASON, required=True, allow_none=True)
    last_delivered_at = UtcDateTimeField(required=True, allow_none=True)
    failing_since = UtcDateTimeField(
        required=True, allow_none=True, metadata={"description": "Since when every attempt has failed."}
    )
    previous_secret_ends_at = UtcDateTimeField(
        required=True, allow_none=True, metadata={"description": "Until then the secret before this one signs too."}
    )
    created_by = fields.String(required=True)
    created_at = UtcDateTimeField(required=True)


class NewWebhookEndpoint(WebhookEndpoint):
    secret = fields.String(
        required=True, metadata={"description": "It verifies signatures; it is shown only this once."}
    )


class WebhookDelivery(Schema):
    id = fields.Integer(required=True)
    event_id = fields.Integer(required=True, allow_none=True, metadata={"description": "Null for a ping."})
    type = fields.String(required=True, metadata={"description": "The event's type, or ping."})
    position = fields.Integer(required=True, allow_none=True, metadata={"description": "Null for a ping."})
    webhook_id = fields.String(required=True, metadata={"description": "The header `webhook-id` of each attempt."})
    status = EnumField(DELIVERY_STATUS, required=True)
    attempts = fields.Integer(required=True)
    next_attempt_at = UtcDateTimeField(
        required=True, allow_none=True, metadata={"description": "Null if there will be none."}
    )
    last_attempt_at = UtcDateTimeField(required=True, allow_none=True)
    last_status_code = fields.Integer(required=True, allow_none=True)
    last_error = EnumField(DELIVERY_ERROR, required=True, allow_none=True)
    delivered_at = UtcDateTimeField(required=True, allow_none=True)
    created_at = UtcDateTimeField(required=True)


class EndpointListQuery(Query):
    per_page = QueryInteger(load_default=100, largest=100)
    cursor = Cursor()


class DeliveryListQuery(Query):
    per_page = QueryInteger(load_default=15, largest=100)
    status = EnumField(DELIVERY_STATUS)
    cursor = Cursor()


_MEMBERS, _MEMBERS_OF_DELIVERY = tuple(WebhookEndpoint().fields), tuple(WebhookDelivery().fields)
_render = renderer(WebhookEndpoint(), itemgetter)
_render_new = renderer(NewWebhookEndpoint(), itemgetter)
_render_delivery = renderer(WebhookDelivery(), itemgetter)


def render_endpoint(endpoint: models.WebhookEndpoint, *, now: datetime, with_secret: bool = False) -> dict[str, Any]:
    """An endpoint; with its secret only when that is new."""
    ends_at = endpoint.previous_secret_ends_at
    shown = {name: getattr(endpoint, name) for name in _MEMBERS}
    shown |= {
        "types": endpoint.types.split(),
        "previous_secret_ends_at": ends_at if ends_at and now < ends_at else None,
    }
    if with_secret:
        return _render_new({**shown, "secret": endpoint.secret})
    return _render(shown)


def render_delivery(shown: ShownDelivery) -> dict[str, Any]:
    delivery = shown.delivery
    is_ping = delivery.event_id is None
    members = {name: getattr(delivery, name, None) for name in _MEMBERS_OF_DELIVERY}
    members |= {
        "type": shown.type or _PING,
        "position": None if is_ping else delivery.position,
        "webhook_id": shown.webhook_id,
        "next_attempt_at": delivery.next_attempt_at if delivery.status == DeliveryStatus.PENDING else None,
    }
    return _render_delivery(members)
