"""Strict reading of JSON that a gateway wrote: every value is checked before it becomes a value of ours."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from payments_app.gateways.events import OtherMode

_CURRENCY = re.compile(r"[A-Z]{3}")
_OUR_ID = re.compile(r"[1-9][0-9]{0,18}")
# What a signed 64-bit column holds.
_MOST = 2**63 - 1
# What the columns of references hold; the gateways' ids are far shorter.
_LONGEST_ID = 255

# How secret and restricted keys begin, and whether what they see is live. Sandboxes are test mode.
_MODES = {"sk_test_": False, "rk_test_": False, "sk_live_": True, "rk_live_": True}


class Unreadable(ValueError):
    """Not an object of the gateway's as its documentation describes them."""


# What reading a member of an object raises if the gateway, or somebody who has its secret, wrote something else there.
UNEXPECTED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError)


def livemode_of(api_key: str | None) -> bool | None:
    """Whether a key is one of live mode; None if its spelling does not say so."""
    return _MODES.get((api_key or "")[: len("sk_test_")])


def of_mode(thing: Mapping[str, Any], livemode: bool | None) -> Mapping[str, Any]:
    """The same object; one without ``livemode`` is not judged, and if our key's mode is unknown none is.

    Raises:
        OtherMode: it is of the other mode.
    """
    its_own = thing.get("livemode")
    if isinstance(its_own, bool) and livemode is not None and its_own is not livemode:
        raise OtherMode(text_or(thing.get("id"), "none"))
    return thing


def parsed(body: bytes) -> Mapping[str, Any]:
    """The members of a JSON object; none if the body is something else."""
    try:
        return members_of(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def event_id_of(event_id: Any, body: bytes) -> str:
    """An event's id, or instead of one that cannot be kept another that is the same at each delivery."""
    named = event_id.encode(errors="surrogatepass") if isinstance(event_id, str) and event_id else body
    return text_or(event_id, f"sha256:{hashlib.sha256(named).hexdigest()}")


def members_of(value: Any) -> Mapping[str, Any]:
    """The members of an object; none if it is something else."""
    return value if isinstance(value, Mapping) else {}


def text_of(value: Any) -> str:
    """An id or another word of 1 to 255 printable ASCII characters.

    Raises:
        Unreadable: no text, or none that both databases can keep.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID or not (value.isascii() and value.isprintable()):
        raise Unreadable
    return value


def text_or(value: Any, otherwise: str) -> str:
    """The same, or ``otherwise`` if it is none."""
    try:
        return text_of(value)
    except Unreadable:
        return otherwise


def amount_of(value: Any, *, least: int) -> int:
    """An amount in minor units.

    Raises:
        Unreadable: no whole number, or none of that size.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise Unreadable
    return value


def currency_of(value: Any) -> str:
    """A currency's three letters, for a column that holds no more.

    Raises:
        Unreadable: no text, or none of three letters.
    """
    currency = text_of(value).upper()
    if not _CURRENCY.fullmatch(currency):
        raise Unreadable
    return currency


def our_id(value: Any) -> int | None:
    """An id that we wrote on the object as text; None if it is none of ours."""
    if not isinstance(value, str) or not _OUR_ID.fullmatch(value) or int(value) > _MOST:
        return None
    return int(value)


def moment_or_none(value: Any) -> datetime | None:
    """Seconds since 1970, or ISO 8601, in UTC; None if it is neither."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
        return moment.astimezone(UTC)
    except UNEXPECTED:
        return None
