"""Strict JSON bodies: ambiguous JSON is refused, and so is JSON that would overload the parser."""

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

# No valid body nests deeper than 2; Python's parser raises RecursionError near 1,000.
MAX_DEPTH = 32

# Characters. The largest id has 19 digits. int() refuses more than 4,300 digits, and takes quadratic time below that.
MAX_INTEGER_LENGTH = 40

# A possessive quantifier, and an optional closing quote: no input can make the expression backtrack.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[][{}]")


def read_json(request: Request) -> Any:
    """The body as Python values: objects as dicts, fractions as Decimals. An empty body is an empty object.

    Raises:
        RequestEntityTooLarge: more than 64 KiB (413, Werkzeug's).
        UnsupportedMediaType: the Content-Type is not JSON (415).
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
    """Whether the request has one Content-Type line. Proxies join two lines of one header with a comma."""
    content_type = request.content_type or ""
    # A comma in quotes is part of a value, such as the boundary of a form.
    return "," not in content_type or "," not in _STRING.sub("", content_type)


def read_all(request: Request, *, max_bytes: int | None = None) -> bytes:
    """The whole body. It is cached, so that Werkzeug can still read a form from it.

    Raises:
        RequestEntityTooLarge: more than ``max_bytes``, by default 64 KiB (413, Werkzeug's).
        MalformedRequest: the chunked encoding is not valid (400).
    """
    limit = max_bytes or current_app.config["MAX_CONTENT_LENGTH"]
    # Werkzeug silently truncates a chunked body at its limit. With a limit of one byte more, a longer body is detected.
    request.max_content_length = limit + 1
    try:
        raw = request.get_data(cache=True)
    except ParseException:
        raise MalformedRequest(N_("The body's chunks are malformed.")) from None
    if len(raw) > limit:
        raise RequestEntityTooLarge
    return raw


def _refuse_deep(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:  # nearly always: no closer check needed
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
    # A Decimal of any length is parsed in linear time, and no integer field accepts it: the response is 422.
    return int(digits) if len(digits) <= MAX_INTEGER_LENGTH else Decimal(digits)


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal can hold
        return Decimal("Infinity")


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedRequest(LocalizedMessage("%(name)s is not JSON.", name=name))
