"""What the views of payments and of refunds have in common: reading what is asked, and sending what is answered."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Response, current_app, json, request

from payments_app import clock
from payments_app.accounts.caller import Caller
from payments_app.errors import RETRY_AFTER_SECONDS
from payments_app.i18n.locale import translate
from payments_app.i18n.messages import N_
from payments_app.idempotency.headers import pop_key
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.observability.logging import current_request_id
from payments_app.payments import schemas
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.repository import ChangeCommand, Conditions

# Made once: marshmallow copies every field whenever a schema is made.
_CHANGED = schemas.Changed()


def build_change(
    operation: str,
    payment_id: int,
    body: dict[str, Any],
    caller: Caller,
    *,
    render_current: Callable[[IdempotencyKey], StoredResponse],
    replays_current_state: bool = False,
) -> ChangeCommand:
    """What the request asks for. What the caller believes of the version is a condition, and no part of it."""
    key = pop_key(body, caller.user_id)
    wanted = {name: value for name, value in body.items() if name != "expected_version"}
    idempotent_request = IdempotentRequest(
        caller, key, operation, {"payment_id": payment_id, **wanted}, render_current, replays_current_state
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
    """Whether the caller knows that version.

    A payment has one version at a time. A list of different ETags is therefore no version: as one header line it may
    be two lines that a server or proxy has joined, of which the older one must not let the request pass.
    """
    given = request.headers.get("If-Match")
    if given is None:
        return None
    if len({tag.strip() for tag in given.split(",")} - {""}) != 1:
        return lambda _version: False
    etags = request.if_match
    return lambda version: etags.contains(str(version))


def audit_context_for(caller: Caller) -> AuditContext:
    return AuditContext(caller.actor, current_request_id(), clock.now())


def return_url() -> str:
    """Where a gateway's page leads the patient back to. It names neither a link nor a payment.

    Outside production it is the address that the request was sent to, if ``PUBLIC_URL`` is not set. In production no
    gateway that moves money and leads away is configured without it.
    """
    base = current_app.config["SETTINGS"].public_url or request.host_url.rstrip("/")
    return f"{base}/pay/return"


def dump_changed(payment: Payment) -> dict[str, Any]:
    """``data`` of a payment that was changed."""
    changed = {"payment": payment, "invoice": payment.invoices[0], "status": payment.status}
    return _CHANGED.dump(changed)  # type: ignore[no-any-return]  # of one object: a dict


def dump_existing(payment: Payment) -> dict[str, Any]:
    """What every answer says to a key whose first answer was dropped for its age."""
    return {"type": "existing", "payment_id": payment.id, "existing_payment_id": payment.id}


def render_current_state(key: IdempotencyKey) -> StoredResponse:
    """For a key whose first answer was dropped for its age: that it was used, and what has become of it."""
    data = {**dump_existing(key.payment), **dump_changed(key.payment)}
    return StoredResponse(HTTPStatus.OK, json.dumps({"data": data, "message": translate(EXISTING_MESSAGE)}))


EXISTING_MESSAGE = N_("This request was done before; this is what it has become")


def respond(stored: StoredResponse) -> Response:
    """Send a kept or fresh answer; its headers follow from its body, so that a replay has the same ones."""
    if stored.status == HTTPStatus.PAYMENT_REQUIRED:
        response = Response(stored.body, status=stored.status, mimetype="application/problem+json")
    else:
        response = _respond_with_payment(stored)
    if stored.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _respond_with_payment(stored: StoredResponse) -> Response:
    payment = json.loads(stored.body)["data"]["payment"]
    response = Response(stored.body, status=stored.status, mimetype="application/json")
    response.headers["ETag"] = etag(payment["version"])
    if stored.status == HTTPStatus.CREATED:
        response.headers["Location"] = f"{request.script_root}{request.path}/{payment['id']}"
    if stored.status == HTTPStatus.ACCEPTED:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def etag(version: int) -> str:
    return f'"{version}"'
