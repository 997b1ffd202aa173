"""Schema of an idempotency key."""

from marshmallow import Schema, fields

from payments_app.api.enums import NamedEnum
from payments_app.api.fields import UtcDateTimeField


class FirstResponse(Schema):
    status = fields.Integer(required=True)
    body = fields.Dict(required=True)


class IdempotencyKey(Schema):
    key = fields.String(required=True)
    operation = fields.String(required=True)
    payment_id = fields.Integer(required=True)
    refund_id = fields.Integer(required=True, allow_none=True)
    status = NamedEnum(
        "PaymentStatus",
        "RefundStatus",
        required=True,
        metadata={"description": "Present status of the payment or refund that the key created or changed."},
    )
    first_response = fields.Nested(
        FirstResponse,
        required=True,
        allow_none=True,
        metadata={"description": "Null if it was pruned, or if it held a secret."},
    )
    created_at = UtcDateTimeField(required=True)
