"""Finding the key of a request: header ``Idempotency-Key`` or ``X-Idempotency-Key``, or a member of the body.

The header follows draft-ietf-httpapi-idempotency-key-header-07, whose quoted form is taken as well as the bare one
that most clients send.

A key with a comma is taken from the body only. In a header it may be two lines that a server or proxy on the way has
joined into one (RFC 9110, 5.3): it is refused, unless it was used before this rule and its answer can be given again.
"""

import re
import uuid
from typing import Any

from flask import Flask, Response, g, request

from payments_app.api.fields import KEY_PATTERN
from payments_app.errors import ValidationFailed
from payments_app.i18n.messages import N_
from payments_app.idempotency import repository

HEADERS = ("Idempotency-Key", "X-Idempotency-Key")

_WELL_FORMED = re.compile(KEY_PATTERN)


def init_app(app: Flask) -> None:
    app.after_request(_return_key)


def pop_key(body: dict[str, Any], user_id: int) -> str:
    """Take the key out of the request, or make one.

    Raises:
        ValidationFailed: ill-formed, two that differ, or a new one from a header with a comma (422).
    """
    given = [_unquoted(request.headers[name]) for name in HEADERS if name in request.headers]
    may_be_joined = any("," in key for key in given)
    if "idempotency_key" in body:
        given.append(body.pop("idempotency_key"))
    if not given:
        given = [str(uuid.uuid4())]
    for key in given:
        require_well_formed(key)
    if len(set(given)) > 1:
        raise ValidationFailed({"idempotency_key": [N_("Was given more than once, with different values.")]})
    if may_be_joined and not repository.is_used(user_id, given[0]):
        raise ValidationFailed(
            {
                "idempotency_key": [
                    N_("Has a comma, as a header sent twice has: send it once, or send the key in the body.")
                ]
            }
        )
    g.idempotency_key = given[0]
    return given[0]


def is_key_given(body: dict[str, Any]) -> bool:
    """Whether the caller sent a key, by whatever way; asked before ``pop_key`` takes it out."""
    return "idempotency_key" in body or any(name in request.headers for name in HEADERS)


def is_well_formed(key: str) -> bool:
    """Whether anything may have been done under such a key; others the databases cannot even look for."""
    return _WELL_FORMED.fullmatch(key) is not None


def require_well_formed(key: str) -> str:
    """The key itself.

    Raises:
        ValidationFailed: no key of ours may look like that (422).
    """
    if not is_well_formed(key):
        raise ValidationFailed(
            {"idempotency_key": [N_('Must be 1 to 255 visible ASCII characters without space, " and \\.')]}
        )
    return key


def _unquoted(header: str) -> str:
    quoted = re.fullmatch(r'"(.*)"', header)
    return quoted[1] if quoted else header


def _return_key(response: Response) -> Response:
    key = g.get("idempotency_key")
    if key is not None:
        response.headers["Idempotency-Key"] = key
    return response
