"""Shape of an idempotency key, as its user may look at it."""

from marshmallow import Schema, fields

from payments_app.api.fields import UtcDateTimeField


class FirstResponse(Schema):
    status = fields.Integer(required=True)
    body = fields.Dict(required=True)


class IdempotencyKey(Schema):
    key = fields.String(required=True)
    operation = fields.String(required=True)
    payment_id = fields.Integer(required=True)
    refund_id = fields.Integer(required=True, allow_none=True)
    status = fields.String(
        required=True,
        metadata={"description": "present status of what the key made or changed"},
    )
    first_response = fields.Nested(
        FirstResponse,
        required=True,
        allow_none=True,
        metadata={"description": "null once dropped for its age, or where it held a secret"},
    )
    created_at = UtcDateTimeField(required=True)
