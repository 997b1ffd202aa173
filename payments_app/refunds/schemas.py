"""Schemas of refunds, and of requests for them."""

from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields

from payments_app.api.enums import Enumeration, EnumField
from payments_app.api.fields import Amount, RequestedAmount, StorableString, StrictBoolean, UtcDateTimeField
from payments_app.i18n.messages import N_
from payments_app.payments.models.refund import MAX_REASON_LENGTH, RefundStatus
from payments_app.payments.schemas import ALL_OR_NONE, PRUNED, Payment, PaymentChange

REFUND_STATUS = Enumeration.of(RefundStatus)


class Refund(Schema):
    id = fields.Integer(required=True)
    payment_id = fields.Integer(required=True)
    amount = Amount(required=True, attribute="amount_minor")
    currency = fields.String(required=True)
    status = EnumField(REFUND_STATUS, required=True)
    reason = fields.String(required=True, allow_none=True)
    created_at = UtcDateTimeField(required=True)
    settled_at = UtcDateTimeField(required=True, allow_none=True)
    credit_note_id = fields.Integer(
        required=True,
        allow_none=True,
        metadata={
            "description": "Null until it has succeeded, and if no invoice was paid. If it fails later, it stays."
        },
    )


class RefundedPayment(Schema):
    payment = fields.Nested(Payment, required=True)
    refund = fields.Nested(Refund, required=True)
    refund_amount = Amount(required=True)


class RefundedOrExistingPayment(RefundedPayment):
    """The response to a refund; it has the last three members if its first response was pruned."""

    type = fields.String(metadata={"enum": ["existing"], **PRUNED})
    payment_id = fields.Integer(metadata=PRUNED)
    existing_payment_id = fields.Integer(metadata=PRUNED)

    rules: ClassVar[dict[str, Any]] = ALL_OR_NONE


def _is_positive(amount_minor: int) -> None:
    if amount_minor <= 0:
        raise ValidationError(N_("Must be above 0."))


def _is_not_negative(amount_minor: int) -> None:
    if amount_minor < 0:
        raise ValidationError(N_("Must not be below 0."))


class RefundCreate(PaymentChange):
    amount = RequestedAmount(
        load_default=None,
        allow_none=True,
        validate=_is_positive,
        metadata={
            "description": "Major units, as a number or as a plain decimal string; at most two decimals. Null: all "
            "that can be refunded.",
            "exclusiveMinimum": 0,
        },
    )
    expected_refundable = RequestedAmount(
        validate=_is_not_negative,
        metadata={
            "description": "The amount that can still be refunded, as the caller expects; 409 if it differs.",
            "minimum": 0,
        },
    )
    allow_repeat = StrictBoolean(
        metadata={"description": "True: make a second refund of the same amount, even shortly after the first."}
    )
    reason = StorableString(load_default=None, allow_none=True, max_length=MAX_REASON_LENGTH)
