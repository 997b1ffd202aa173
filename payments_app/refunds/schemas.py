"""Schemas of refunds, and of requests for them."""

from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields

from payments_app.api.enums import Enumeration, EnumField
from payments_app.api.fields import (
    Amount,
    Cursor,
    QueryBoolean,
    QueryInteger,
    RequestedAmount,
    StorableString,
    StrictBoolean,
    UtcDateTimeField,
    ZonedDateTime,
)
from payments_app.api.query import Query
from payments_app.i18n.messages import N_
from payments_app.payments.models.refund import MAX_REASON_LENGTH, RefundStatus
from payments_app.payments.schemas import ALL_OR_NONE, PRUNED, Payment, PaymentChange

REFUND_STATUS = Enumeration.of(
    RefundStatus,
    "requested: waits for another admin's approval. pending: sent to the gateway; if by_hand, staff have to send the "
    "money. unknown: the gateway did not answer. The amount of these three is reserved.",
)

# Characters of the reason of a rejection: the column also holds a word before it.
MAX_REJECTION_LENGTH = 400


class Refund(Schema):
    id = fields.Integer(required=True)
    payment_id = fields.Integer(required=True)
    amount = Amount(required=True, attribute="amount_minor")
    currency = fields.String(required=True)
    status = EnumField(REFUND_STATUS, required=True)
    by_hand = fields.Boolean(
        required=True, metadata={"description": "Staff send the money: while it is pending, it is to be sent."}
    )
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


class RefundDetails(Refund):
    """A refund as staff see it."""

    gateway = fields.String(required=True)
    payment_method = fields.String(required=True, attribute="method")
    reference = fields.String(
        required=True,
        allow_none=True,
        attribute="shown_reference",
        metadata={"description": "Of the transfer by which staff sent the money, or the gateway's id of the refund."},
    )
    decline_reason = fields.String(
        required=True, allow_none=True, metadata={"description": "Why it failed: declined, rejected, lapsed, not sent."}
    )
    requested_by = fields.Integer(
        required=True, allow_none=True, metadata={"description": "The user's id. Null: made elsewhere, or long ago."}
    )
    approved_by = fields.Integer(required=True, allow_none=True)
    approved_at = UtcDateTimeField(required=True, allow_none=True)


class RefundListQuery(Query):
    """Conditions, all of which a refund fulfils. A time ``_to`` is the first one that is not shown any more."""

    per_page = QueryInteger(load_default=15, largest=100)
    status = EnumField(REFUND_STATUS)
    by_hand = QueryBoolean()
    payment_id = QueryInteger()
    payment_method = StorableString(min_length=1, max_length=32)
    gateway = StorableString(min_length=1, max_length=32)
    requested_by = QueryInteger(metadata={"description": "The id of the user who requested it."})
    created_from = ZonedDateTime()
    created_to = ZonedDateTime()
    cursor = Cursor()


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


class RefundApprove(PaymentChange):
    pass


class RefundReject(PaymentChange):
    reason = StorableString(required=True, min_length=1, max_length=MAX_REJECTION_LENGTH)


class RefundSettle(PaymentChange):
    reference = StorableString(
        required=True,
        min_length=1,
        max_length=255,
        outer_space=False,
        metadata={
            "example": "GC-778-221",
            "description": "Of the transfer by which the money was sent; case, blanks, hyphens and invisible "
            "characters are ignored when references are compared.",
        },
    )
