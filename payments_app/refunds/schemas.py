"""Schemas of refunds, and of requests for them."""

from marshmallow import Schema, ValidationError, fields

from payments_app.api.fields import DECIMAL_PATTERN, Amount, StorableString, StrictBoolean, UtcDateTimeField
from payments_app.i18n.messages import N_
from payments_app.payments.models.refund import MAX_REASON_LENGTH, RefundStatus
from payments_app.payments.schemas import Payment, PaymentChange


class Refund(Schema):
    id = fields.Integer(required=True)
    payment_id = fields.Integer(required=True)
    amount = Amount(required=True, attribute="amount_minor")
    currency = fields.String(required=True)
    status = fields.String(required=True, metadata={"enum": [str(status) for status in RefundStatus]})
    reason = fields.String(required=True, allow_none=True)
    created_at = UtcDateTimeField(required=True)
    settled_at = UtcDateTimeField(required=True, allow_none=True)


class Refunded(Schema):
    payment = fields.Nested(Payment, required=True)
    refund = fields.Nested(Refund, required=True)
    refund_amount = Amount(required=True)


class ExistingRefund(Refunded):
    """The present state of a refund, for a key whose first response was pruned."""

    type = fields.String(required=True, metadata={"enum": ["existing"]})
    payment_id = fields.Integer(required=True)
    existing_payment_id = fields.Integer(required=True)


def _is_positive(amount_minor: int) -> None:
    if amount_minor <= 0:
        raise ValidationError(N_("Must be above 0."))


def _is_not_negative(amount_minor: int) -> None:
    if amount_minor < 0:
        raise ValidationError(N_("Must not be below 0."))


class RefundCreate(PaymentChange):
    amount = Amount(
        load_default=None,
        allow_none=True,
        validate=_is_positive,
        metadata={
            "description": "Major units, as a number or as a plain decimal string; at most two decimals. Null: all "
            "that can be refunded.",
            "pattern": DECIMAL_PATTERN,
            "exclusiveMinimum": 0,
        },
    )
    expected_refundable = Amount(
        validate=_is_not_negative,
        metadata={
            "description": "The amount that can still be refunded, as the caller expects; 409 if it differs.",
            "pattern": DECIMAL_PATTERN,
            "minimum": 0,
        },
    )
    allow_repeat = StrictBoolean(
        metadata={"description": "True: make a second refund of the same amount, even shortly after the first."}
    )
    reason = StorableString(load_default=None, allow_none=True, max_length=MAX_REASON_LENGTH)
