"""Schemas of a consultation."""

from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validates_schema

from payments_app.accounts.schemas import ANY_SPELLING
from payments_app.api.fields import Amount, Cursor, PayableAmount, QueryInteger, StorableString, StrictInteger
from payments_app.api.query import Query
from payments_app.i18n.messages import N_


class ActivePayment(Schema):
    id = fields.Integer(required=True)
    status = fields.String(required=True)
    amount = Amount(required=True, attribute="amount_minor")
    version = fields.Integer(required=True)


class Consultation(Schema):
    id = fields.Integer(required=True)
    patient_id = fields.Integer(required=True)
    fee = Amount(required=True, attribute="fee_minor", allow_none=True)
    currency = fields.String(required=True)
    active_payment = fields.Nested(ActivePayment, required=True, allow_none=True)


class ConsultationPut(Schema):
    patient_id = StrictInteger(least=1)
    patient_email = StorableString(min_length=1, max_length=254, metadata={"description": ANY_SPELLING})
    fee = PayableAmount(
        load_default=None,
        allow_none=True,
        metadata={"description": f"{PayableAmount.DESCRIPTION} None: the patient may pay any amount."},
    )

    # For the document: what the function below checks.
    rules: ClassVar[dict[str, Any]] = {"oneOf": [{"required": ["patient_id"]}, {"required": ["patient_email"]}]}

    @validates_schema
    def _name_one_patient(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if ("patient_id" in data) == ("patient_email" in data):
            raise ValidationError(N_("Give either patient_id or patient_email."), "patient_id")


class ConsultationListQuery(Query):
    # A patient's consultations usually fit into one page.
    per_page = QueryInteger(load_default=100, largest=100)
    cursor = Cursor()
