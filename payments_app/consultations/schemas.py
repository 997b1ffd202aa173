"""Schemas of a consultation."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from payments_app.accounts import emails, names
from payments_app.accounts.schemas import ANY_SPELLING
from payments_app.api.enums import Enumeration, EnumField, NamedEnum
from payments_app.api.fields import (
    Amount,
    Cursor,
    PayableAmount,
    QueryInteger,
    StorableString,
    StrictInteger,
    UtcDateTimeField,
    ZonedDateTime,
)
from payments_app.api.query import Query
from payments_app.consultations.repository import NewPatient, Registration
from payments_app.i18n.messages import N_

# A reference: visible ASCII, so that no two of them look alike.
REFERENCE_PATTERN = "^[!-~]{1,64}$"
# The language, and perhaps its script or region: en, id, fil-PH, zh-Hant.
LANGUAGE_PATTERN = "^[A-Za-z]{2,3}(?:-[A-Za-z]{2,4})?$"
CONSULTATION_STATUS = Enumeration(
    "ConsultationStatus",
    ("open", "closed"),
    "closed is final: no new payment is taken, and nothing of the consultation changes.",
)
WAYS_TO_NAME_A_PATIENT = ("patient_id", "patient_email", "patient")


class IsAddress(validate.Validator):
    def __call__(self, value: str) -> str:
        if not emails.is_address(emails.normalized(value)):
            raise ValidationError(N_("Not a valid e-mail address."))
        return value


class IsName(validate.Validator):
    def __call__(self, value: str) -> str:
        if not names.is_name(value):
            raise ValidationError(N_("Must have 1 to 200 characters, and no control characters."))
        return value


class IsLanguage(validate.Validator):
    def __call__(self, value: str) -> str:
        if not re.fullmatch(LANGUAGE_PATTERN, value):
            raise ValidationError(N_("Not a language code, such as en or id."))
        return value


class IsReference(validate.Validator):
    def __call__(self, value: str) -> str:
        if not re.fullmatch(REFERENCE_PATTERN, value):
            raise ValidationError(N_("Must have 1 to 64 characters, visible ASCII without spaces."))
        return value


class Reference(fields.String):
    def __init__(self, *, metadata: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        described = {"pattern": REFERENCE_PATTERN, "minLength": 1, "maxLength": 64, "example": "BK-77"}
        super().__init__(validate=IsReference(), metadata={**described, **(metadata or {})}, **kwargs)


class ActivePayment(Schema):
    id = fields.Integer(required=True)
    status = NamedEnum("PaymentStatus", required=True)
    amount = Amount(required=True, attribute="amount_minor")
    version = fields.Integer(required=True)


class Consultation(Schema):
    id = fields.Integer(required=True)
    patient_id = fields.Integer(required=True)
    fee = Amount(required=True, attribute="fee_minor", allow_none=True)
    currency = fields.String(required=True)
    description = fields.String(required=True, allow_none=True)
    starts_at = UtcDateTimeField(required=True, allow_none=True)
    reference = fields.String(required=True, allow_none=True)
    status = EnumField(CONSULTATION_STATUS, required=True)
    closed_at = UtcDateTimeField(required=True, allow_none=True)
    registered_by = fields.Integer(
        required=True, allow_none=True, metadata={"description": "The id of the user who registered it first."}
    )
    active_payment = fields.Nested(ActivePayment, required=True, allow_none=True)


class ConsultationPatient(Schema):
    """Found by the e-mail address; added, without a password, if nobody has it."""

    email = StorableString(
        required=True,
        min_length=1,
        max_length=254,
        validators=(IsAddress(),),
        metadata={"description": ANY_SPELLING, "example": "patient@test.com"},
    )
    name = StorableString(
        required=True,
        min_length=1,
        max_length=200,
        validators=(IsName(),),
        metadata={
            "pattern": names.PATTERN,
            "description": "Taken only if the patient is new.",
            "example": "Maria Santos",
        },
    )
    language = StorableString(
        load_default=None,
        allow_none=True,
        max_length=8,
        validators=(IsLanguage(),),
        metadata={
            "pattern": LANGUAGE_PATTERN,
            "description": "Of pages and messages, such as en or id. Taken only if the patient is new.",
        },
    )


class ConsultationDetails(Schema):
    """What is omitted becomes null; but a reference, once given, stays."""

    fee = PayableAmount(
        load_default=None,
        allow_none=True,
        metadata={"description": f"{PayableAmount.DESCRIPTION} None: the patient may pay any amount."},
    )
    description = StorableString(
        load_default=None, allow_none=True, max_length=200, metadata={"description": "Shown to the patient."}
    )
    starts_at = ZonedDateTime(load_default=None, allow_none=True)
    reference = Reference(
        load_default=None,
        allow_none=True,
        metadata={"description": "Your own name for it. Once given it stays, and no other consultation can have it."},
    )


class ConsultationPut(ConsultationDetails):
    patient_id = StrictInteger(least=1)
    patient_email = StorableString(min_length=1, max_length=254, metadata={"description": ANY_SPELLING})
    patient = fields.Nested(ConsultationPatient)

    # For the document: what the function below checks.
    rules: ClassVar[dict[str, Any]] = {"oneOf": [{"required": [name]} for name in WAYS_TO_NAME_A_PATIENT]}

    @validates_schema
    def _name_one_patient(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if sum(name in data for name in WAYS_TO_NAME_A_PATIENT) != 1:
            raise ValidationError(N_("Give exactly one of patient_id, patient_email and patient."), "patient_id")


class ConsultationClose(Schema):
    """Nothing more is to be said: the path names the consultation."""


class ConsultationListQuery(Query):
    reference = Reference(metadata={"description": "Only the consultation that has this reference."})
    # A patient's consultations usually fit into one page.
    per_page = QueryInteger(load_default=100, largest=100)
    cursor = Cursor()


def registration(body: dict[str, Any], *, currency: str) -> Registration:
    """What a loaded ``ConsultationPut`` asks for."""
    patient = body.get("patient")
    return Registration(
        patient_id=body.get("patient_id"),
        patient_email=body.get("patient_email"),
        patient=None if patient is None else NewPatient(**patient),
        fee_minor=body["fee"],
        currency=currency,
        description=body["description"],
        starts_at=body["starts_at"],
        reference=body["reference"],
    )
