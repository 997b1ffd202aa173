"""Chooses the language of a response, English or Indonesian, from ``Accept-Language`` (RFC 9110, 12.5.4); translates.

Readers of Malay, Javanese and other related languages get Indonesian.
"""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

from babel.core import get_global
from flask import Flask, current_app, g, has_request_context, request
from flask_babel import Babel, format_decimal, get_translations
from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

from payments_app.i18n.messages import LocalizedMessage

LANGUAGES = ("en", "id")

# Languages whose readers understand Indonesian better than English: Malay, Javanese and Sundanese as in CLDR's language
# matching, and the other large languages of Indonesia, where schools teach Indonesian.
_NEAREST = dict.fromkeys(
    ("ms", "jv", "su", "ace", "ban", "bew", "bjn", "bug", "mad", "mak", "min", "sas"),
    "id",
)
# CLDR's current codes for old and three-letter codes, such as id for in and ind, and ms for may and zsm.
_ALIASES = get_global("language_aliases")


def init_app(app: Flask) -> None:
    Babel(app, default_locale="en", locale_selector=reader_language)


def reader_language() -> str:
    """The language of the response; ``DEFAULT_LOCALE`` if the reader accepts none of ours. English outside a request.

    A view that lets the reader choose otherwise sets ``g.language``.
    """
    default: str = current_app.config["SETTINGS"].default_locale
    if not has_request_context():
        return "en"  # commands and logs are in English
    return g.get("language") or _negotiated(request.headers.get("Accept-Language", ""), default)


def nearest_language(tag: str) -> str | None:
    """``en`` or ``id`` for a language tag (RFC 5646) such as ``in-ID``, ``ms-MY`` or ``id-Latn``, or None."""
    primary = re.split("[-_]", tag, maxsplit=1)[0].lower()  # Java sends id_ID
    code = _ALIASES.get(primary, primary)
    nearest = _NEAREST.get(code, code)
    return nearest if nearest in LANGUAGES else None


@lru_cache(1_024)  # few different headers per clinic, of at most 8 KiB (gunicorn)
def _negotiated(header: str, default: str) -> str:
    """Our language with the highest quality; ``*`` means the languages that the header does not name."""
    accepted = parse_accept_header(header, LanguageAccept)
    named = {nearest_language(tag) for tag, _ in accepted}
    unnamed = next((language for language in (default, *LANGUAGES) if language not in named), None)
    for tag, quality in sorted(accepted, key=lambda item: -item[1]):  # parse_accept_header puts * last
        nearest = unnamed if tag == "*" else nearest_language(tag)
        if quality > 0 and nearest is not None:
            return nearest
    return default


def translate(text: str) -> str:
    """The text in the reader's language, with its values filled in."""
    if not isinstance(text, LocalizedMessage):
        return _translated(text, reader_language())
    translated = _translated(text.template, reader_language())
    return translated % {name: _localized_value(value) for name, value in text.values.items()}


@lru_cache(2_048)  # several times the number of texts in all languages
def _translated(text: str, _language: str) -> str:
    return str(get_translations().ugettext(text))


def _localized_value(value: Any) -> Any:
    match value:
        case str():
            return translate(value)
        case Decimal():  # an amount
            return format_decimal(value, "#,##0.00")
        case _:
            return value
