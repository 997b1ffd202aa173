"""Shapes of problem details (RFC 9457), as ``problems.py`` renders them.

One is for any problem. Others are for one problem each, whose ``data`` a program reads.
"""

from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

from marshmallow import Schema, fields

from payments_app.api.enums import NamedEnum
from payments_app.api.fields import Amount

# If an operation has examples of one of these statuses, it has one of each problem that it responds with, and the
# document says what each looks like: a client decides by ``type`` and ``data`` what it does next. The problems of
# another status are alike to a client.
STATUSES_WITH_EXACT_PROBLEMS = (HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED)


class _ProblemMembers(Schema):
    type = fields.String(required=True, metadata={"description": "The path of the page that explains the problem."})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata={"description": "For people, in their language."})
    instance = fields.String(required=True, metadata={"description": "The path of the request."})
    message = fields.String(required=True, metadata={"description": "The same text as `detail`."})
    retryable = fields.Boolean(
        required=True, metadata={"description": "Whether the same request with the same key may succeed later."}
    )
    request_id = fields.String(required=True)


class Problem(_ProblemMembers):
    """Any problem."""

    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "Of each field that has an invalid value, what is wrong with it."},
    )
    data = fields.Dict()


class ActivePaymentExistsData(Schema):
    type = fields.String(required=True, metadata={"enum": ["existing"]})
    payment_id = fields.Integer(required=True)
    existing_payment_id = fields.Integer(required=True)
    status = NamedEnum("PaymentStatus", required=True)


class ConsultationCurrencyData(Schema):
    consultation_currency = fields.String(required=True)
    payment_currency = fields.String(required=True)


class CurrentVersionData(Schema):
    current_version = fields.Integer(required=True)


class InvalidTransitionData(Schema):
    status = NamedEnum("PaymentStatus", required=True)


class ReferenceFixedData(Schema):
    reference = fields.String(required=True)


class RefundableChangedData(Schema):
    refundable = Amount(required=True)


class RefundDeclinedData(Schema):
    refund_id = fields.Integer(required=True)
    reason = fields.String(required=True, allow_none=True, metadata={"description": "In the gateway's words."})


class RefundRepeatedData(Schema):
    refund_id = fields.Integer(required=True)


class RefundStatusData(Schema):
    status = NamedEnum("RefundStatus", required=True)


class RefundAlreadySentData(Schema):
    reference = fields.String(required=True, metadata={"description": "Of the transfer that is recorded."})


# ``data`` of the problems that have it, by code; not required if the same problem may also come without it.
_DATA = {
    "active-payment-exists": fields.Nested(ActivePaymentExistsData),
    "consultation-currency": fields.Nested(ConsultationCurrencyData, required=True),
    "invalid-transition": fields.Nested(InvalidTransitionData, required=True),
    "precondition-failed": fields.Nested(CurrentVersionData, required=True),
    "reference-fixed": fields.Nested(ReferenceFixedData),
    "refund-already-sent": fields.Nested(RefundAlreadySentData, required=True),
    "refund-not-requested": fields.Nested(RefundStatusData, required=True),
    "refund-not-to-be-sent": fields.Nested(RefundStatusData, required=True),
    "refund-declined": fields.Nested(RefundDeclinedData, required=True),
    "refund-repeated": fields.Nested(RefundRepeatedData, required=True),
    "refundable-changed": fields.Nested(RefundableChangedData, required=True),
    "version-conflict": fields.Nested(CurrentVersionData),
}


def schema_of_problems(name: str, codes: Sequence[str]) -> type[Schema]:
    """The schema of a response that has one of these problems; ``name`` is its name if there are several."""
    if len(codes) == 1:
        return _schema_of(codes[0])
    return type(name, (Schema,), {"alternatives": {f"/problems/{code}": _schema_of(code) for code in codes}})


@cache
def _schema_of(code: str) -> type[Schema]:
    """The schema of one problem. Its name is that of the error class: ``LockTimeoutProblem``."""
    own_type = fields.String(required=True, metadata={"enum": [f"/problems/{code}"]})
    members: dict[str, fields.Field[Any]] = {"type": own_type}
    if code in _DATA:
        members["data"] = _DATA[code]
    return type(f"{code.title().replace('-', '')}Problem", (_ProblemMembers,), members)
