"""Shapes of disputes and of what is asked of them."""

from marshmallow import Schema, fields

from payments_app.api.enums import Enumeration, EnumField
from payments_app.api.fields import Amount, Cursor, QueryInteger, UtcDateTimeField
from payments_app.api.query import Query
from payments_app.gateways.events import DisputeStatus

DISPUTE_STATUS = Enumeration.of(
    DisputeStatus, "Inquiries block nothing; needs_response, under_review and lost block refunds."
)


class Dispute(Schema):
    id = fields.Integer(required=True)
    payment_id = fields.Integer(required=True)
    gateway = fields.String(required=True)
    reference = fields.String(required=True, metadata={"description": "The gateway's name for it."})
    amount = Amount(required=True, attribute="amount_minor")
    currency = fields.String(required=True)
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "The gateway's word, such as fraudulent."}
    )
    status = EnumField(DISPUTE_STATUS, required=True)
    due_at = UtcDateTimeField(
        required=True, allow_none=True, metadata={"description": "By when the clinic has to answer the bank."}
    )
    created_at = UtcDateTimeField(required=True)
    updated_at = UtcDateTimeField(required=True)


class DisputeListQuery(Query):
    per_page = QueryInteger(load_default=15, largest=100)
    status = EnumField(DISPUTE_STATUS)
    payment_id = QueryInteger()
    cursor = Cursor()
