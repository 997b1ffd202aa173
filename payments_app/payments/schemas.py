"""Schemas of payments, and of requests about them."""

from operator import itemgetter
from typing import Any, ClassVar

from marshmallow import Schema, fields

from payments_app.accounts.schemas import ANY_SPELLING
from payments_app.api.enums import Enumeration, EnumField
from payments_app.api.fields import (
    KEY_PATTERN,
    Amount,
    Cursor,
    HttpUrl,
    Length,
    PayableAmount,
    QueryBoolean,
    QueryInteger,
    StorableString,
    StrictInteger,
    UtcDateTimeField,
    ZonedDateTime,
)
from payments_app.api.query import Query
from payments_app.api.serializer import renderer
from payments_app.gateways.capabilities import CheckoutKind
from payments_app.invoices.schemas import Invoice, TaxRecord
from payments_app.payments.models.event import EVENT_TYPES
from payments_app.payments.models.status import PaymentStatus

PAYMENT_STATUS = Enumeration.of(
    PaymentStatus,
    "Only refunded is final for money. failed and expired can still become completed, by money that comes late; "
    "cancelled stays, but money that comes late is recorded for staff to return.",
)
CHECKOUT_KIND = Enumeration.of(
    CheckoutKind, "How it is paid: on the gateway's page, in a form of your page, or by hand."
)
EVENT_TYPE = Enumeration("EventType", EVENT_TYPES)


class Payment(Schema):
    id = fields.Integer(required=True)
    user_id = fields.Integer(required=True)
    consultation_id = fields.Integer(required=True)
    amount = Amount(required=True, attribute="amount_minor")
    currency = fields.String(required=True)
    payment_method = fields.String(required=True)
    gateway = fields.String(required=True)
    status = EnumField(PAYMENT_STATUS, required=True)
    transaction_id = fields.String(required=True, allow_none=True)
    receipt_url = fields.String(required=True, allow_none=True)
    refunded_amount = Amount(required=True, attribute="refunded_minor")
    needs_review = fields.Boolean(required=True)
    version = fields.Integer(required=True)
    created_at = UtcDateTimeField(required=True)
    updated_at = UtcDateTimeField(required=True)
    completed_at = UtcDateTimeField(required=True, allow_none=True)


class PaymentDetails(Payment):
    invoices = fields.List(fields.Nested(Invoice), required=True)
    tax_records = fields.List(fields.Nested(TaxRecord), required=True)
    # Named by string: refunds know payments, not the other way round.
    refunds = fields.List(fields.Nested("payments_app.refunds.schemas.Refund"), required=True)


class CreatedPayment(Schema):
    type = fields.String(required=True, metadata={"enum": ["new"]})
    payment_id = fields.Integer(required=True)
    payment = fields.Nested(Payment, required=True)
    invoice = fields.Nested(Invoice, required=True)


class ChangedPayment(Schema):
    payment = fields.Nested(Payment, required=True)
    invoice = fields.Nested(Invoice, required=True)
    status = EnumField(PAYMENT_STATUS, required=True)


class ExistingPayment(ChangedPayment):
    """The present state of a payment, for a key whose first response was pruned."""

    type = fields.String(required=True, metadata={"enum": ["existing"]})
    payment_id = fields.Integer(required=True)
    existing_payment_id = fields.Integer(required=True)


PRUNED = {"description": "Present if the first response was pruned: the response shows the present state."}
# Such a response has all three of these members, and any other has none. One schema with a rule, and not one of two
# schemas: generated clients then have one type, whose members can be read without asking which of the two came.
ALL_OR_NONE: dict[str, Any] = {
    "dependentRequired": {
        "type": ["payment_id", "existing_payment_id"],
        "payment_id": ["type"],
        "existing_payment_id": ["type"],
    }
}


class ChangedOrExistingPayment(ChangedPayment):
    """The response to a change; it is as ``ExistingPayment`` if its first response was pruned."""

    type = fields.String(metadata={"enum": ["existing"], **PRUNED})
    payment_id = fields.Integer(metadata=PRUNED)
    existing_payment_id = fields.Integer(metadata=PRUNED)

    rules: ClassVar[dict[str, Any]] = ALL_OR_NONE


class Checkout(Schema):
    gateway = fields.String(required=True)
    reference = fields.String(required=True)
    expires_at = UtcDateTimeField(
        required=True, metadata={"description": "When the payment ends if it is not paid: not before its session does."}
    )
    redirect_url = fields.String(metadata={"description": "The gateway's page, on which the patient pays"})
    client_secret = fields.String(metadata={"description": "For gateways that the patient's device calls directly."})
    instructions = fields.String(metadata={"description": "For payments that the patient sends by hand."})
    payment = fields.Nested(Payment, required=True)


class PaymentEvent(Schema):
    id = fields.Integer(required=True)
    event = EnumField(EVENT_TYPE, required=True)
    from_status = EnumField(PAYMENT_STATUS, required=True, allow_none=True)
    to_status = EnumField(PAYMENT_STATUS, required=True)
    version = fields.Integer(required=True)
    actor = fields.String(required=True)
    request_id = fields.String(required=True, allow_none=True)
    created_at = UtcDateTimeField(required=True)


class PaymentMethod(Schema):
    code = fields.String(required=True)
    name = fields.String(required=True)
    gateway = fields.String(required=True)
    checkout = EnumField(CHECKOUT_KIND, required=True)


class IdempotentRequest(Schema):
    """Members of every request with an effect; the key is here for clients that cannot set headers."""

    idempotency_key = fields.String(
        validate=Length(1, 255),
        metadata={"pattern": KEY_PATTERN, "description": "Instead of the header Idempotency-Key."},
    )


class PaymentCreate(IdempotentRequest):
    consultation_id = StrictInteger(required=True, least=1, metadata={"example": 5})
    amount = PayableAmount(required=True, metadata={"example": 5000})
    payment_method = StorableString(
        required=True,
        min_length=1,
        max_length=32,
        metadata={"example": "stripe", "description": "A code of GET /api/v1/payment-methods."},
    )


class PaymentChange(IdempotentRequest):
    expected_version = StrictInteger(least=0)


class PaymentConfirm(PaymentChange):
    transaction_id = StorableString(
        required=True,
        min_length=1,
        max_length=255,
        outer_space=False,
        metadata={
            "example": "TXN-123456789",
            "description": "The gateway's id of the transaction. For money sent by hand, its reference; case, "
            "blanks, hyphens and invisible characters are ignored.",
        },
    )
    receipt_url = HttpUrl(load_default=None, metadata={"example": "https://receipts.example/123"})


class PaymentCancel(PaymentChange):
    pass


class PaymentCheckout(IdempotentRequest):
    pass


class ReviewResolve(Schema):
    expected_version = StrictInteger(
        least=0, metadata={"description": "The version that was looked at: a later reason for a review is not ended."}
    )


class PaymentListQuery(Query):
    """Conditions, all of which a payment fulfils. A time ``_to`` is the first one that is not shown any more."""

    per_page = QueryInteger(load_default=15, largest=100)
    status = EnumField(PAYMENT_STATUS)
    consultation_id = QueryInteger()
    created_from = ZonedDateTime()
    created_to = ZonedDateTime()
    completed_from = ZonedDateTime()
    completed_to = ZonedDateTime()
    payment_method = StorableString(min_length=1, max_length=32)
    needs_review = QueryBoolean()
    transaction_id = StorableString(
        min_length=1, max_length=255, metadata={"description": "As it is stored; of references by hand too."}
    )
    user_id = QueryInteger(metadata={"description": "The patient's id. For admins alone: others get 403."})
    patient_email = StorableString(
        min_length=1, max_length=254, metadata={"description": f"For admins alone: others get 403. {ANY_SPELLING}"}
    )
    cursor = Cursor()


class PaymentExportQuery(PaymentListQuery):
    """The same conditions, without pages."""

    class Meta:
        exclude = ("per_page", "cursor")


def created_data(payment: dict[str, Any], invoice: dict[str, Any]) -> dict[str, Any]:
    """``data`` of a new payment (``CreatedPayment``), from its rows."""
    return _render_created({"type": "new", "payment_id": payment["id"], "payment": payment, "invoice": invoice})


_render_created = renderer(CreatedPayment(), itemgetter)
