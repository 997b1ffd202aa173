"""What the views of payments and of refunds have in common: reading what is asked, and sending what is answered."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Response, json, request

from payments_app import clock
from payments_app.accounts.caller import Caller
from payments_app.errors import RETRY_AFTER_SECONDS
from payments_app.i18n.locale import told
from payments_app.i18n.messages import N_
from payments_app.idempotency.headers import take_key
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import Answer, KeyedRequest
from payments_app.observability.logging import current_request_id
from payments_app.payments import schemas
from payments_app.payments.models.event import Deed
from payments_app.payments.models.payment import Payment
from payments_app.payments.repository import Change, Conditions

# Made once: marshmallow copies every field whenever a schema is made.
_CHANGED = schemas.Changed()


def change_of(
    operation: str,
    payment_id: int,
    body: dict[str, Any],
    caller: Caller,
    *,
    revive: Callable[[IdempotencyKey], Answer],
    follows: bool = False,
) -> Change:
    """What the request asks for. What the caller believes of the version is a condition, and no part of it."""
    key = take_key(body, caller.user_id)
    wanted = {name: value for name, value in body.items() if name != "expected_version"}
    keyed = KeyedRequest(caller, key, operation, {"payment_id": payment_id, **wanted}, revive, follows)
    conditions = Conditions(_if_match(), body.get("expected_version"))
    return Change(payment_id=payment_id, caller=caller, keyed=keyed, deed=deed_of(caller), conditions=conditions)


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


def deed_of(caller: Caller) -> Deed:
    return Deed(caller.actor, current_request_id(), clock.now())


def changed_data(payment: Payment) -> dict[str, Any]:
    """``data`` of a payment that was changed."""
    changed = {"payment": payment, "invoice": payment.invoices[0], "status": payment.status}
    return _CHANGED.dump(changed)  # type: ignore[no-any-return]  # of one object: a dict


def existing_data(payment: Payment) -> dict[str, Any]:
    """What every answer says to a key whose first answer was dropped for its age."""
    return {"type": "existing", "payment_id": payment.id, "existing_payment_id": payment.id}


def render_existing(key: IdempotencyKey) -> Answer:
    """For a key whose first answer was dropped for its age: that it was used, and what has become of it."""
    data = {**existing_data(key.payment), **changed_data(key.payment)}
    return Answer(HTTPStatus.OK, json.dumps({"data": data, "message": told(EXISTING_MESSAGE)}))


EXISTING_MESSAGE = N_("This request was done before; this is what it has become")


def respond(answer: Answer) -> Response:
    """Send a kept or fresh answer; its headers follow from its body, so that a replay has the same ones."""
    if answer.status == HTTPStatus.PAYMENT_REQUIRED:
        response = Response(answer.body, status=answer.status, mimetype="application/problem+json")
    else:
        response = _respond_with_payment(answer)
    if answer.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _respond_with_payment(answer: Answer) -> Response:
    payment = json.loads(answer.body)["data"]["payment"]
    response = Response(answer.body, status=answer.status, mimetype="application/json")
    response.headers["ETag"] = etag(payment["version"])
    if answer.status == HTTPStatus.CREATED:
        response.headers["Location"] = f"{request.script_root}{request.path}/{payment['id']}"
    if answer.status == HTTPStatus.ACCEPTED:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def etag(version: int) -> str:
    return f'"{version}"'
