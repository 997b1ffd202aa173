"""Shapes of the feed."""

import re
from typing import Any

from marshmallow import Schema, ValidationError, fields

from payments_app import clock, money
from payments_app.api.enums import EnumField
from payments_app.api.fields import Amount, Cursor, QueryInteger, UtcDateTimeField
from payments_app.api.query import Query
from payments_app.events.repository import FeedEvent
from payments_app.i18n.messages import N_
from payments_app.payments.models.event import EVENT_TYPES
from payments_app.payments.schemas import EVENT_TYPE, PAYMENT_STATUS

MOST_EVENTS = 1_000
LONGEST_WAIT_SECONDS = 25

_A_TYPE = f"(?:{'|'.join(map(re.escape, EVENT_TYPES))})"
TYPES_PATTERN = f"^{_A_TYPE}(?:,{_A_TYPE})*$"


class EventTypes(fields.String):
    """Names of events with commas between them, each once or more."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        names = (text or "").split(",")
        for name in names:
            if name not in EVENT_TYPES:
                raise ValidationError(N_("Not the name of a type of event, or several with commas between them."))
        return sorted(set(names))


class FeedQuery(Query):
    after = Cursor()
    limit = QueryInteger(load_default=100, largest=MOST_EVENTS)
    types = EventTypes(
        load_default=tuple,  # called; as a value it would be in the document, as a text
        metadata={
            "description": "Only events of these types, with commas between them.",
            "example": "payment.completed,refund.succeeded",
            "pattern": TYPES_PATTERN,
        },
    )
    wait = QueryInteger(
        load_default=0,
        least=0,
        largest=LONGEST_WAIT_SECONDS,
        metadata={"description": "Seconds to wait for an event if there is none yet."},
    )


class EventData(Schema):
    payment_id = fields.Integer(required=True)
    consultation_id = fields.Integer(required=True)
    consultation_reference = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The booking system's name of the consultation, when the event got its position."},
    )
    status = EnumField(PAYMENT_STATUS, required=True, metadata={"description": "The payment's status after the event."})
    version = fields.Integer(required=True, metadata={"description": "The payment's version after the event."})
    amount = Amount(required=True)
    currency = fields.String(required=True)
    refund_id = fields.Integer(metadata={"description": "Of events about a refund."})
    refund_amount = Amount(metadata={"description": "The amount of that refund."})
    dispute_id = fields.Integer(metadata={"description": "Of events about a dispute."})
    actor = fields.String(required=True)


class Event(Schema):
    id = fields.Integer(required=True)
    type = EnumField(EVENT_TYPE, required=True)
    position = fields.Integer(required=True, metadata={"description": "The place in the feed; it never changes."})
    created_at = UtcDateTimeField(required=True)
    data = fields.Nested(EventData, required=True)


class FeedMeta(Schema):
    next_cursor = fields.String(
        required=True,
        metadata={"description": "Send it as `after` for what comes next, also from the end of the feed."},
    )
    has_more = fields.Boolean(required=True, metadata={"description": "Whether more can be read at once."})


class Feed(Schema):
    data = fields.List(fields.Nested(Event), required=True)
    meta = fields.Nested(FeedMeta, required=True)


def render_event(event: FeedEvent) -> dict[str, Any]:
    """An event as the feed and webhooks show it. The same event gives the same members in the same order, always."""
    about: dict[str, Any] = {
        "refund_id": event.refund_id,
        "refund_amount": None if event.refund_amount_minor is None else money.to_json_number(event.refund_amount_minor),
        "dispute_id": event.dispute_id,
    }
    return {
        "id": event.id,
        "type": event.type,
        "position": event.position,
        "created_at": clock.to_text(event.created_at),
        "data": {
            "payment_id": event.payment_id,
            "consultation_id": event.consultation_id,
            "consultation_reference": event.consultation_reference,
            "status": event.status,
            "version": event.version,
            "amount": money.to_json_number(event.amount_minor),
            "currency": event.currency,
            **{name: value for name, value in about.items() if value is not None},
            "actor": event.actor,
        },
    }
