"""marshmallow fields for requests and responses. Stricter than marshmallow's own, because money is involved."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from flask import current_app
from marshmallow import ValidationError, fields, validate
from marshmallow.exceptions import SCHEMA

from config import BASIS_POINTS_PER_ONE
from payments_app import clock, money
from payments_app.i18n.messages import N_, LocalizedMessage

# The maximum of a signed 64-bit column.
MAX_ID = 2**63 - 1

# Control characters (also NUL), and lone surrogates, which have no UTF-8 encoding.
_UNSTORABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_PLAIN_INTEGER = re.compile(r"[1-9][0-9]{0,18}")

# Also published in the OpenAPI document, so only syntax that Python and ECMA-262 have in common.
DECIMAL_PATTERN = f"^{money.PLAIN_DECIMAL.pattern}$"
# An idempotency key: visible ASCII without the quote and the backslash, which need escapes in a quoted header; and no
# dot segments, which URL libraries would resolve away in GET /idempotency-keys/{key}.
_KEY = r'(?!\.{1,2}"?$)[!#-\[\]-~]{1,255}'
KEY_PATTERN = f"^{_KEY}$"
# A key in a header has no comma: servers and proxies join two lines of one header with a comma (RFC 9110, 5.3).
_KEY_IN_HEADER = _KEY.replace("[!#-", r"[!#-+\--")
KEY_HEADER_PATTERN = f'^(?:{_KEY_IN_HEADER}|"{_KEY_IN_HEADER}")$'
# A date and a time of day to the minute or finer, and a zone.
ZONED_TIME_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})$"
)
_ZONED_TIME = re.compile(ZONED_TIME_PATTERN)
# Years that every zone's clock can show.
DAY_PATTERN = r"^(?:19|2[0-9])[0-9]{2}-[0-9]{2}-[0-9]{2}$"
_DAY = re.compile(DAY_PATTERN)
_TEXT_PATTERN = r"^[^\x00-\x1f\x7f]*$"
# To Python, U+0085 is a space too.
_TRIMMED_TEXT_PATTERN = r"^[^\s\x00-\x1f\x7f\x85](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f\x85])?$"
_URL_PATTERN = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s\x00-\x1f\x7f]+$"


# marshmallow's own messages, listed here so that they can be translated.
MARSHMALLOWS_TEXTS = (
    N_("Missing data for required field."),
    N_("Field may not be null."),
    N_("Invalid value."),
    N_("Unknown field."),
    N_("Invalid input type."),
    N_("Not a valid string."),
    N_("Not a valid integer."),
    N_("Not a valid boolean."),
    N_("Not a valid URL."),
    N_("Not a valid list."),
)


class Range(validate.Range):
    """marshmallow's validator with a translatable message."""

    def _format_error(self, value: Any, message: str) -> str:
        return LocalizedMessage("Must be from %(least)s to %(most)s.", least=self.min, most=self.max)


class Length(validate.Length):
    """marshmallow's validator with a translatable message."""

    def _format_error(self, value: Any, message: str) -> str:
        return LocalizedMessage("Must have %(least)s to %(most)s characters.", least=self.min, most=self.max)


class OneOf(validate.OneOf):
    """marshmallow's validator with a translatable message."""

    def _format_error(self, value: Any) -> str:
        return LocalizedMessage("Must be one of: %(choices)s.", choices=self.choices_text)


class StrictInteger(fields.Integer):
    """A JSON integer from ``least`` to 2^63-1; no strings, no fractions, no booleans."""

    def __init__(self, *, least: int, most: int = MAX_ID, **kwargs: Any) -> None:
        super().__init__(strict=True, validate=Range(least, most), **kwargs)


class QueryInteger(fields.Integer):
    """An integer in a query: ASCII digits only. ``int()`` also accepts spaces, ``_`` and digits of other scripts."""

    def __init__(self, *, least: int = 1, largest: int = MAX_ID, **kwargs: Any) -> None:
        super().__init__(validate=Range(least, largest), **kwargs)
        self._takes_zero = least == 0

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        if not isinstance(value, str) or not (_PLAIN_INTEGER.fullmatch(value) or (self._takes_zero and value == "0")):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class StrictBoolean(fields.Boolean):
    """``true`` or ``false`` only. marshmallow would also accept ``1``, ``"yes"`` and ``"off"``."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class StorableString(fields.String):
    """A string that both databases can store: no control characters (also no NUL), no lone surrogates."""

    default_error_messages: dict[str, Any] = {
        "unstorable": N_("Contains characters that cannot be stored."),
        "outer_space": N_("Must not begin or end with a space."),
    }

    def __init__(
        self,
        *,
        min_length: int = 0,
        max_length: int,
        outer_space: bool = True,
        validators: tuple[validate.Validator, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._outer_space = outer_space
        pattern = _TEXT_PATTERN if outer_space else _TRIMMED_TEXT_PATTERN
        super().__init__(
            validate=[Length(min_length, max_length), *validators],
            metadata={"pattern": pattern, **(metadata or {})},
            **kwargs,
        )

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if _UNSTORABLE.search(text):
            raise self.make_error("unstorable")
        if not self._outer_space and text != text.strip():
            raise self.make_error("outer_space")
        return text


class HttpUrl(StorableString):
    """An absolute http or https URL of at most 2,048 characters, the longest that all browsers support."""

    def __init__(self, *, metadata: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        url = validate.URL(schemes={"http", "https"}, require_tld=False)
        described = {
            "pattern": _URL_PATTERN,
            "description": "An absolute http or https URL.",
            **(metadata or {}),
        }
        super().__init__(
            min_length=1, max_length=2048, outer_space=False, validators=(url,), metadata=described, **kwargs
        )


class Amount(fields.Field[Any]):
    """Money: major units in JSON, integer minor units (hundredths) in Python.

    Accepts a JSON number (``5000``, ``5000.5``, ``1e4``) or a plain decimal string (``"5000.00"``) with at most two
    decimals. Responds with a JSON number, exact to the minor unit.
    """

    default_error_messages: dict[str, Any] = {
        "invalid": N_("Not a valid amount."),
        "decimals": N_("Must have at most 2 decimals."),
    }

    def _serialize(self, value: int | None, attr: str | None, obj: Any, **kwargs: Any) -> int | float | None:
        return None if value is None else money.to_json_number(value)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        number = self._number(value)
        minor = money.to_minor(number)
        if minor is None:
            raise self.make_error("decimals" if number.is_finite() and -(10**15) < number < 10**15 else "invalid")
        return minor

    def _number(self, value: Any) -> Decimal:
        if isinstance(value, str):
            if not money.PLAIN_DECIMAL.fullmatch(value):
                raise self.make_error("invalid")
            return Decimal(value)
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return Decimal(value)
        raise self.make_error("invalid")


class RequestedAmount(Amount):
    """An amount in a request. The document says that it may be a string, which an amount in a response never is."""

    DESCRIPTION = "Major units, as a number or as a plain decimal string within the same limits; at most two decimals."

    def __init__(self, *, metadata: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        described = {"description": self.DESCRIPTION, "pattern": DECIMAL_PATTERN, **(metadata or {})}
        super().__init__(metadata=described, **kwargs)


class PayableAmount(RequestedAmount):
    """An amount within ``PAYMENT_MIN_AMOUNT`` and ``PAYMENT_MAX_AMOUNT``."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        minor = super()._deserialize(value, attr, data, **kwargs)
        settings = current_app.config["SETTINGS"]
        least, most = settings.payment_min_amount_minor, settings.payment_max_amount_minor
        if not least <= minor <= most:
            raise ValidationError(
                LocalizedMessage(
                    "Must be from %(least)s to %(most)s.", least=money.to_major(least), most=money.to_major(most)
                )
            )
        return minor


class Cursor(fields.String):
    """A signed position in a list. Only the format is checked here; ``cursors.read_cursor`` checks the signature."""

    def __init__(self) -> None:
        limits = {"pattern": "^[A-Za-z0-9._-]+$", "minLength": 1, "maxLength": 512}  # ours are far shorter
        super().__init__(metadata={"description": "``next_cursor`` of the previous page, unchanged.", **limits})


class RateField(fields.Field[Any]):
    """A rate: basis points in Python, a fraction in JSON: 1200 is 0.12."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> float:
        return int(value) / BASIS_POINTS_PER_ONE


class UtcDateTimeField(fields.Field[Any]):
    """A time as ISO 8601 in UTC; for responses only."""

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else clock.to_text(value)


class ZonedDateTime(UtcDateTimeField):
    """A time, taken as ISO 8601 with its zone (``2026-03-14T17:26:53+08:00``); UTC inside, and when given."""

    default_error_messages: dict[str, Any] = {
        "invalid": N_("Not an ISO 8601 time with a zone, such as 2026-03-14T17:26:53+08:00; in a URL, write + as %2B."),
    }

    def __init__(self, *, metadata: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        described = {"pattern": ZONED_TIME_PATTERN, "description": "ISO 8601 with a zone.", **(metadata or {})}
        super().__init__(metadata=described, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        if not isinstance(value, str) or not _ZONED_TIME.fullmatch(value):
            raise self.make_error("invalid")
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):  # no such day, or in UTC before the year 1
            raise self.make_error("invalid") from None


class QueryDay(fields.Field[Any]):
    """A day of the calendar in a query, as ``2026-03-14``."""

    default_error_messages: dict[str, Any] = {"invalid": N_("Not a day, such as 2026-03-14.")}

    def __init__(self, *, metadata: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(metadata={"type": "string", "pattern": DAY_PATTERN, **(metadata or {})}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> date:
        if not isinstance(value, str) or not _DAY.fullmatch(value):
            raise self.make_error("invalid")
        try:
            return date.fromisoformat(value)
        except ValueError:  # no such day
            raise self.make_error("invalid") from None


class QueryBoolean(fields.Boolean):
    """``true`` or ``false`` in a query, and no other word."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if value not in ("true", "false"):
            raise self.make_error("invalid")
        return bool(value == "true")


def errors_by_field(messages: Mapping[Any, Any], prefix: str = "") -> dict[str, list[str]]:
    """marshmallow's errors, nested as the body is, by the path of each field, such as ``patient.email``."""
    found: dict[str, list[str]] = {}
    for name, inner in messages.items():
        path = prefix if name == SCHEMA else ".".join(filter(None, (prefix, str(name))))
        if isinstance(inner, Mapping):
            found.update(errors_by_field(inner, path))
        else:
            found[path or str(name)] = list(inner)
    return found
