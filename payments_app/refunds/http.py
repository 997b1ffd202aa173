"""Renders a refund for HTTP and for the commands, by its present status, so that a replay shows the same."""

from http import HTTPStatus
from typing import Any

from flask import json

from payments_app import money
from payments_app.api.problems import problem_body
from payments_app.errors import RefundDeclined
from payments_app.i18n.locale import translate
from payments_app.i18n.messages import N_, LocalizedMessage
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import StoredResponse
from payments_app.payments.http import EXISTING_MESSAGE, dump_existing
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund, RefundStatus
from payments_app.refunds import schemas

_REFUNDED = schemas.RefundedPayment()

_MESSAGES = {
    RefundStatus.PENDING: N_("The refund is pending"),
    RefundStatus.UNKNOWN: N_(
        "The gateway did not answer, so the refund's outcome is unknown; it is looked up, and not sent twice"
    ),
    RefundStatus.SUCCEEDED: N_("Refund made"),
}


def render_refund(payment: Payment, refund: Refund) -> StoredResponse:
    """200 if it succeeded, 402 if it failed, 202 until then."""
    if refund.has_failed:
        return StoredResponse(HTTPStatus.PAYMENT_REQUIRED, json.dumps(problem_body(declined(refund))))
    body = {"data": refunded_data(payment, refund), "message": translate(_MESSAGES[RefundStatus(refund.status)])}
    return StoredResponse(HTTPStatus.ACCEPTED if refund.is_open else HTTPStatus.OK, json.dumps(body))


def render_existing_refund(key: IdempotencyKey) -> StoredResponse:
    """The refund's present state: as ``render_refund``, or, if the key was pruned, as an existing refund (200)."""
    payment, refund = key.payment, key.refund
    assert refund is not None  # noqa: S101  # for the type checker: a refund's key names its refund
    if not key.was_pruned:
        return render_refund(payment, refund)
    data = {**dump_existing(payment), **refunded_data(payment, refund)}
    return StoredResponse(HTTPStatus.OK, json.dumps({"data": data, "message": translate(EXISTING_MESSAGE)}))


def declined(refund: Refund) -> RefundDeclined:
    return RefundDeclined(
        LocalizedMessage(
            "The gateway declined to refund %(amount)s %(currency)s; no money was returned.",
            amount=money.to_major(refund.amount_minor),
            currency=refund.currency,
        ),
        data={"refund_id": refund.id, "reason": refund.decline_reason},
    )


def refunded_data(payment: Payment, refund: Refund) -> dict[str, Any]:
    members = {"payment": payment, "refund": refund, "refund_amount": refund.amount_minor}
    return _REFUNDED.dump(members)  # type: ignore[no-any-return]  # of one object: a dict
