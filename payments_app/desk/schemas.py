"""Shapes of what the front desk reads."""

from marshmallow import Schema, fields

from payments_app.api.enums import Enumeration, EnumField
from payments_app.api.fields import Amount, Cursor, QueryDay, QueryInteger, StorableString, UtcDateTimeField
from payments_app.api.query import Query
from payments_app.desk.queries import Queue
from payments_app.disputes.schemas import DISPUTE_STATUS
from payments_app.payments.schemas import PAYMENT_STATUS, Payment
from payments_app.refunds.schemas import REFUND_STATUS

QUEUE = Enumeration(
    "DeskQueue",
    tuple(Queue),
    "to_be_confirmed: paid by hand, staff confirm it. to_be_approved: refunds that another admin has to approve. "
    "to_be_sent: refunds by hand. refund_unknown: the gateway did not answer. disputed: the bank has not decided. "
    "needs_review: staff have to look.",
)


class DeskPatient(Schema):
    name = fields.String(required=True)
    email = fields.String(required=True)


class DeskConsultation(Schema):
    id = fields.Integer(required=True)
    reference = fields.String(
        required=True, allow_none=True, metadata={"description": "The booking system's name of it."}
    )
    description = fields.String(required=True, allow_none=True)
    starts_at = UtcDateTimeField(required=True, allow_none=True)


class DeskDispute(Schema):
    id = fields.Integer(required=True)
    status = EnumField(DISPUTE_STATUS, required=True)
    due_at = UtcDateTimeField(required=True, allow_none=True)


class DeskRefund(Schema):
    id = fields.Integer(required=True)
    status = EnumField(REFUND_STATUS, required=True)
    amount = Amount(required=True, attribute="amount_minor")
    by_hand = fields.Boolean(required=True)


class DeskPayment(Schema):
    payment = fields.Nested(Payment, required=True)
    patient = fields.Nested(DeskPatient, required=True)
    consultation = fields.Nested(DeskConsultation, required=True)
    refundable_amount = Amount(
        required=True, attribute="refundable_minor", metadata={"description": "How much can be refunded now."}
    )
    by_hand = fields.Boolean(
        required=True, metadata={"description": "Staff confirm it, and send the money of its refunds."}
    )
    dispute = fields.Nested(
        DeskDispute,
        required=True,
        allow_none=True,
        metadata={"description": "The one that has to be answered first; if none is open, the latest one."},
    )
    open_refund = fields.Nested(
        DeskRefund,
        required=True,
        allow_none=True,
        metadata={"description": "The oldest refund that is not settled."},
    )


class DeskListQuery(Query):
    """Conditions, all of which a payment fulfils."""

    per_page = QueryInteger(load_default=25, largest=100)
    search = StorableString(
        min_length=1,
        max_length=255,
        outer_space=False,
        metadata={
            "description": "Part of the patient's name or e-mail, the beginning of a consultation's reference or of a "
            "transaction, a reference of money by hand in any spelling, or the number of a payment or consultation.",
            "example": "rosa",
        },
    )
    payment_id = QueryInteger()
    status = EnumField(PAYMENT_STATUS)
    payment_method = StorableString(min_length=1, max_length=32)
    day = QueryDay(
        metadata={
            "description": "The day of its creation, by the clinic's clock (CLINIC_TIMEZONE).",
            "example": "2026-03-14",
        }
    )
    queue = EnumField(QUEUE)
    cursor = Cursor()


class DeskQueues(Schema):
    """The number of payments in each queue."""

    to_be_confirmed = fields.Integer(required=True)
    to_be_approved = fields.Integer(required=True)
    to_be_sent = fields.Integer(required=True)
    needs_review = fields.Integer(required=True)
    disputed = fields.Integer(required=True)
    refund_unknown = fields.Integer(required=True)
