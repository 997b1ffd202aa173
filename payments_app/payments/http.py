"""Shared by the views of payments and refunds: reads a request into a ``ChangeCommand``, and sends a response."""

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin

from flask import request

from payments_app import clock
from payments_app.accounts.caller import Caller
from payments_app.api.json_response import JsonResponse
from payments_app.api.own_address import own_address
from payments_app.api.serializer import renderer
from payments_app.errors import RETRY_AFTER_SECONDS
from payments_app.i18n.locale import translate
from payments_app.i18n.messages import N_
from payments_app.idempotency.headers import pop_key
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.invoices.models import Invoice
from payments_app.observability.logging import current_request_id
from payments_app.payments import schemas
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.repository import ChangeCommand, Conditions

_render_changed = renderer(schemas.ChangedPayment())


class _Changed(NamedTuple):
    """The members of ``schemas.ChangedPayment``."""

    payment: Payment
    invoice: Invoice
    status: str


def build_change(
    operation: str,
    payment_id: int,
    body: dict[str, Any],
    caller: Caller,
    *,
    render_current: Callable[[IdempotencyKey], StoredResponse],
    replays_current_state: bool = False,
) -> ChangeCommand:
    """The change that the request asks for.

    The expected version is a condition and not part of the request: it does not change the request's fingerprint.
    """
    key = pop_key(body, caller.user_id)
    parameters = {name: value for name, value in body.items() if name != "expected_version"}
    idempotent_request = IdempotentRequest(
        caller, key, operation, {"payment_id": payment_id, **parameters}, render_current, replays_current_state
    )
    conditions = Conditions(_if_match(), body.get("expected_version"))
    return ChangeCommand(
        payment_id=payment_id,
        caller=caller,
        request=idempotent_request,
        context=audit_context_for(caller),
        conditions=conditions,
    )


def _if_match() -> Callable[[int], bool] | None:
    """A test whether a version matches the If-Match header; None without the header.

    A payment has one version at a time, so a list of different ETags matches nothing. It may be two header lines that
    a server or proxy has joined, and the older of the two must not let the request pass.
    """
    header = request.headers.get("If-Match")
    if header is None:
        return None
    if len({tag.strip() for tag in header.split(",")} - {""}) != 1:
        return lambda _version: False
    etags = request.if_match
    return lambda version: etags.contains(str(version))


def audit_context_for(caller: Caller) -> AuditContext:
    return AuditContext(caller.actor, current_request_id(), clock.now())


def return_url() -> str:
    """Where a gateway's page leads the patient back to. It names neither a link nor a payment."""
    return absolute("/pay/return")


def absolute(url: str) -> str:
    """The same URL, or the whole one of a path of this service."""
    return urljoin(own_address(), url)


def dump_changed(payment: Payment) -> dict[str, Any]:
    """``data`` of the response to a change."""
    return _render_changed(_Changed(payment, payment.invoices[0], payment.status))


def dump_existing(payment: Payment) -> dict[str, Any]:
    """The members of ``data`` in every response to a key whose first response was pruned."""
    return {"type": "existing", "payment_id": payment.id, "existing_payment_id": payment.id}


def render_current_state(key: IdempotencyKey) -> StoredResponse:
    """The response to a key whose first response was pruned: the payment's present state (200)."""
    data = {**dump_existing(key.payment), **dump_changed(key.payment)}
    return StoredResponse(HTTPStatus.OK, json.dumps({"data": data, "message": translate(EXISTING_MESSAGE)}))


EXISTING_MESSAGE = N_("This request was processed before; data shows the present state")


def respond(stored: StoredResponse) -> JsonResponse:
    """Send a stored or new response. Its headers are derived from its body, so that a replay has the same headers."""
    if stored.status == HTTPStatus.PAYMENT_REQUIRED:
        response = JsonResponse(stored.body, status=stored.status, mimetype="application/problem+json")
    else:
        response = _respond_with_payment(stored)
    if stored.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _respond_with_payment(stored: StoredResponse) -> JsonResponse:
    payment = json.loads(stored.body)["data"]["payment"]
    headers = {"ETag": etag(payment["version"])}
    if stored.status == HTTPStatus.CREATED:
        headers["Location"] = quote(f"{request.script_root}{request.path}/{payment['id']}")
    if stored.status == HTTPStatus.ACCEPTED:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return JsonResponse(stored.body, status=stored.status, headers=headers)


def etag(version: int) -> str:
    return f'"{version}"'
