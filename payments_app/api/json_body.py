"""JSON bodies, read strictly: what could be read in two ways is refused, and nothing hostile reaches the parser."""

import json
import re
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from typing import Any, NoReturn

from flask import Request, current_app
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge

from payments_app.errors import MalformedRequest, UnsupportedMediaType
from payments_app.i18n.messages import N_, LocalizedMessage

# No honest body nests deeper than 2; Python's parser would give up near 1,000 with a RecursionError.
MAX_DEPTH = 32

# Characters. The largest id has 19 digits; int() refuses more than 4,300, and takes quadratic time below that.
MAX_INTEGER_LENGTH = 40

# Possessive, and content with a string that never ends: a hostile body must not be read twice.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[][{}]")


def read_json(request: Request) -> Any:
    """The body as Python values: objects as dicts, fractions as Decimals. An absent body is an empty object.

    Raises:
        RequestEntityTooLarge: more than 64 KiB (413, Werkzeug's).
        UnsupportedMediaType: a body that does not call itself JSON (415).
        MalformedRequest: not UTF-8, not JSON, nested too deep, or a member named twice (400).
    """
    raw = read_all(request)
    if not raw:
        return {}
    if not request.is_json or not names_one_type(request):
        raise UnsupportedMediaType
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedRequest(N_("The body is not UTF-8.")) from None
    _refuse_deep(text)
    try:
        return json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise MalformedRequest(
            LocalizedMessage("The body is not JSON, at character %(position)s.", position=error.pos)
        ) from None


def names_one_type(request: Request) -> bool:
    """Whether its Content-Type is one header line; two lines that were joined on the way have a comma between them."""
    content_type = request.content_type or ""
    # In quotes a comma is part of a value, such as the boundary of a form.
    return "," not in content_type or "," not in _STRING.sub("", content_type)


def read_all(request: Request, *, at_most_bytes: int | None = None) -> bytes:
    """The whole body, which is kept, so that Werkzeug can still read a form from it.

    Raises:
        RequestEntityTooLarge: more than ``at_most_bytes``, by default 64 KiB (413, Werkzeug's).
        MalformedRequest: chunks that are none (400).
    """
    limit = at_most_bytes or current_app.config["MAX_CONTENT_LENGTH"]
    # Werkzeug cuts a chunked body at its limit without a word: one byte more tells whether there was more.
    request.max_content_length = limit + 1
    try:
        raw = request.get_data(cache=True)
    except ParseException:
        raise MalformedRequest(N_("The body's chunks are malformed.")) from None
    if len(raw) > limit:
        raise RequestEntityTooLarge
    return raw


def _refuse_deep(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:  # as nearly always: no need to look closer
        return
    steps = (1 if bracket in "{[" else -1 for bracket in _BRACKET.findall(_STRING.sub("", text)))
    if max(accumulate(steps), default=0) > MAX_DEPTH:
        raise MalformedRequest(LocalizedMessage("The body nests deeper than %(levels)s levels.", levels=MAX_DEPTH))


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedRequest(N_("A member of an object is named twice."))
    return members


def _integer(digits: str) -> int | Decimal:
    # A Decimal of any length is read in linear time, and is no integer to any field: so it ends as a 422.
    return int(digits) if len(digits) <= MAX_INTEGER_LENGTH else Decimal(digits)


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal can hold
        return Decimal("Infinity")


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedRequest(LocalizedMessage("%(name)s is not JSON.", name=name))
