"""Reads the idempotency key of a request: header ``Idempotency-Key`` or ``X-Idempotency-Key``, or a body member.

The header follows draft-ietf-httpapi-idempotency-key-header-07. Its quoted form is accepted, and so is the bare form
that most clients send.

A key with a comma is accepted in the body only. In a header it may be two lines that a server or proxy has joined into
one (RFC 9110, 5.3). It is refused, unless the key was used before this rule existed and its response can be replayed.
"""

import re
import uuid
from typing import Any

from flask import g, request

from payments_app.api.fields import KEY_PATTERN
from payments_app.errors import ValidationFailed
from payments_app.i18n.messages import N_
from payments_app.idempotency import repository, response_cache

HEADERS = ("Idempotency-Key", "X-Idempotency-Key")

_WELL_FORMED = re.compile(KEY_PATTERN)
_QUOTED = re.compile(r'"(.*)"')


def pop_key(body: dict[str, Any], user_id: int) -> str:
    """The key of the request, removed from the body; a new random one if the request has none.

    Raises:
        ValidationFailed: the key is malformed, two keys differ, or a new key in a header has a comma (422).
    """
    keys = [_unquoted(header) for header in _given()]
    may_be_joined = any("," in key for key in keys)
    if "idempotency_key" in body:
        keys.append(body.pop("idempotency_key"))
    if not keys:
        keys = [str(uuid.uuid4())]
    for key in keys:
        require_well_formed(key)
    if len(set(keys)) > 1:
        raise ValidationFailed({"idempotency_key": [N_("Was given more than once, with different values.")]})
    if may_be_joined and not repository.is_used(user_id, keys[0]):
        raise ValidationFailed(
            {
                "idempotency_key": [
                    N_("Contains a comma, like a header sent twice; send it once, or send the key in the body.")
                ]
            }
        )
    g.idempotency_key = keys[0]
    return keys[0]


def is_key_given(body: dict[str, Any]) -> bool:
    """Whether the request has a key, in a header or in the body. Call this before ``pop_key``."""
    return "idempotency_key" in body or bool(_given())


def expected_copy() -> str | None:
    """The name in Redis of the copy that this request will ask for; None if only its body can tell."""
    given, caller = _given(), g.caller
    if len(given) != 1 or caller.link_id is not None:
        return None
    key = _unquoted(given[0])
    return response_cache.name_of_copy(caller.user_id, key) if is_well_formed(key) else None


def is_well_formed(key: str) -> bool:
    """Whether a key of this form can exist. The databases cannot even search for others."""
    return _WELL_FORMED.fullmatch(key) is not None


def require_well_formed(key: str) -> str:
    """Return the key if it is well-formed.

    Raises:
        ValidationFailed: the key is malformed (422).
    """
    if not is_well_formed(key):
        raise ValidationFailed(
            {"idempotency_key": [N_('Must be 1 to 255 visible ASCII characters without space, " and \\.')]}
        )
    return key


def _given() -> list[str]:
    """The request's headers with a key."""
    headers = request.headers
    return [header for name in HEADERS if (header := headers.get(name)) is not None]


def _unquoted(header: str) -> str:
    quoted = _QUOTED.fullmatch(header)
    return quoted[1] if quoted else header
