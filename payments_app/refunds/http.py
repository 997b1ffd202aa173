"""Renders a refund for HTTP and for the commands, by its present status, so that a replay shows the same."""

from http import HTTPStatus
from typing import Any, NamedTuple

from flask import json

from payments_app import money
from payments_app.api.problems import problem_body
from payments_app.api.serializer import renderer
from payments_app.errors import RefundDeclined
from payments_app.i18n.locale import translate
from payments_app.i18n.messages import N_, LocalizedMessage
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import StoredResponse
from payments_app.payments.http import EXISTING_MESSAGE, dump_existing
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund, RefundStatus
from payments_app.refunds import schemas

_render_refunded = renderer(schemas.RefundedPayment())


class _Refunded(NamedTuple):
    """The members of ``schemas.RefundedPayment``."""

    payment: Payment
    refund: Refund
    refund_amount: int


_TO_BE_SENT = N_("The refund is recorded; staff have to send the money")
_MESSAGES = {
    RefundStatus.REQUESTED: N_("The refund waits for another admin's approval; nothing was sent"),
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
    message = _TO_BE_SENT if refund.is_to_be_sent else _MESSAGES[RefundStatus(refund.status)]
    body = {"data": refunded_data(payment, refund), "message": translate(message)}
    return StoredResponse(HTTPStatus.ACCEPTED if refund.is_open else HTTPStatus.OK, json.dumps(body))


def render_rejected(payment: Payment, refund: Refund) -> StoredResponse:
    """200: that it has failed now is what was asked for."""
    body = {"data": refunded_data(payment, refund), "message": translate(N_("Refund rejected"))}
    return StoredResponse(HTTPStatus.OK, json.dumps(body))


def render_existing_rejected(key: IdempotencyKey) -> StoredResponse:
    """The present state of a refund that was rejected under a key whose first response was pruned (200)."""
    assert key.refund is not None  # noqa: S101  # for the type checker: a refund's key names its refund
    return _render_existing(key.payment, key.refund)


def render_existing_refund(key: IdempotencyKey) -> StoredResponse:
    """The refund's present state: as ``render_refund``, or, if the key was pruned, as an existing refund (200)."""
    payment, refund = key.payment, key.refund
    assert refund is not None  # noqa: S101  # for the type checker: a refund's key names its refund
    if not key.was_pruned:
        return render_refund(payment, refund)
    return _render_existing(payment, refund)


def _render_existing(payment: Payment, refund: Refund) -> StoredResponse:
    data = {**dump_existing(payment), **refunded_data(payment, refund)}
    return StoredResponse(HTTPStatus.OK, json.dumps({"data": data, "message": translate(EXISTING_MESSAGE)}))


def declined(refund: Refund) -> RefundDeclined:
    values = {"amount": money.to_major(refund.amount_minor), "currency": refund.currency}
    return RefundDeclined(
        LocalizedMessage("The refund of %(amount)s %(currency)s was not sent; no money was returned.", **values)
        if refund.was_never_sent
        else LocalizedMessage(
            "The gateway declined to refund %(amount)s %(currency)s; no money was returned.", **values
        ),
        data={"refund_id": refund.id, "reason": refund.decline_reason},
    )


def refunded_data(payment: Payment, refund: Refund) -> dict[str, Any]:
    return _render_refunded(_Refunded(payment, refund, refund.amount_minor))
