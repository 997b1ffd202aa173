"""Shapes of a payment link."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from flask import current_app
from marshmallow import Schema, ValidationError, fields

from config import origin_of
from payments_app.api.fields import Cursor, HttpUrl, QueryInteger, StorableString, StrictInteger, UtcDateTimeField
from payments_app.api.query import Query
from payments_app.i18n.messages import N_

# Seconds.
LEAST_LIFETIME, DEFAULT_LIFETIME, MOST_LIFETIME = (
    int(lifetime.total_seconds()) for lifetime in (timedelta(minutes=1), timedelta(days=7), timedelta(days=30))
)


class ReturnUrl(HttpUrl):
    """A URL of one of the sites in ``RETURN_URL_ORIGINS``."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        url = super()._deserialize(value, attr, data, **kwargs)
        if origin_of(url) not in current_app.config["SETTINGS"].return_url_origins:
            raise ValidationError(N_("Not an address to which this service may lead patients (RETURN_URL_ORIGINS)."))
        return url


class PaymentLinkCreate(Schema):
    return_url = ReturnUrl(
        load_default=None,
        allow_none=True,
        metadata={"description": "Where the page leads the patient on to; its origin is in RETURN_URL_ORIGINS."},
    )
    expires_in = StrictInteger(
        least=LEAST_LIFETIME,
        most=MOST_LIFETIME,
        load_default=DEFAULT_LIFETIME,
        metadata={"description": "Seconds from now until nobody can pay by it any more."},
    )


class NewPaymentLink(Schema):
    id = fields.Integer(required=True)
    url = fields.String(
        required=True, metadata={"format": "uri", "description": "For the patient; it is shown only this once."}
    )
    expires_at = UtcDateTimeField(required=True)


class PaymentLink(Schema):
    id = fields.Integer(required=True)
    return_url = fields.String(required=True, allow_none=True)
    created_at = UtcDateTimeField(required=True)
    expires_at = UtcDateTimeField(required=True)
    revoked_at = UtcDateTimeField(required=True, allow_none=True)


class LinkListQuery(Query):
    per_page = QueryInteger(load_default=100, largest=100)
    cursor = Cursor()


class PaymentLinkExchange(Schema):
    token = StorableString(
        required=True, min_length=1, max_length=255, metadata={"description": "The last part of the link's address."}
    )
