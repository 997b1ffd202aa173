"""In whose language: English, or Indonesian if the reader prefers it, or a language near to it, in ``Accept-Language``
(RFC 9110, 12.5.4).
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

# Whose readers are nearer to Indonesian than to English: Malay, Javanese and Sundanese as in CLDR's language matching,
# and the other large languages of Indonesia, where Indonesian is taught.
_NEAREST = dict.fromkeys(
    ("ms", "jv", "su", "ace", "ban", "bew", "bjn", "bug", "mad", "mak", "min", "sas"),
    "id",
)
# CLDR's newer names for old and for long codes, such as id for in and ind, and ms for may and zsm.
_ALIASES = get_global("language_aliases")


def init_app(app: Flask) -> None:
    Babel(app, default_locale="en", locale_selector=reader_language)


def reader_language() -> str:
    """The language of whoever is to read the answer, as far as we speak it; else ``DEFAULT_LOCALE``.

    A door where readers choose theirs in another way notes it as ``g.language``.
    """
    default: str = current_app.config["SETTINGS"].default_locale
    if not has_request_context():
        return "en"  # operators read commands and logs; both are English
    return g.get("language") or _negotiated(request.headers.get("Accept-Language", ""), default)


def nearest_language(tag: str) -> str | None:
    """The language of ours that is nearest to a language tag such as ``in-ID``, ``ms-MY`` or ``id-Latn`` (RFC 5646)."""
    primary = re.split("[-_]", tag, maxsplit=1)[0].lower()  # Java writes id_ID
    code = _ALIASES.get(primary, primary)
    nearest = _NEAREST.get(code, code)
    return nearest if nearest in LANGUAGES else None


@lru_cache(1_024)  # browsers of one clinic ask for few different things; gunicorn takes 8 KiB of a header
def _negotiated(header: str, default: str) -> str:
    """The nearest to what is wanted most; ``*`` stands for the languages that the header does not name."""
    accepted = parse_accept_header(header, LanguageAccept)
    named = {nearest_language(tag) for tag, _ in accepted}
    unnamed = next((language for language in (default, *LANGUAGES) if language not in named), None)
    for tag, quality in sorted(accepted, key=lambda wanted: -wanted[1]):  # which puts * last by itself
        nearest = unnamed if tag == "*" else nearest_language(tag)
        if quality > 0 and nearest is not None:
            return nearest
    return default


def translate(text: str) -> str:
    """A text of ours in the reader's language, with the values that it was made with."""
    if not isinstance(text, LocalizedMessage):
        return _translated(text, reader_language())
    translated = _translated(text.template, reader_language())
    return translated % {name: _told_value(value) for name, value in text.values.items()}


@lru_cache(2_048)  # all our texts in all our languages, several times over
def _translated(text: str, _language: str) -> str:
    return str(get_translations().ugettext(text))


def _told_value(value: Any) -> Any:
    match value:
        case str():
            return translate(value)
        case Decimal():  # an amount
            return format_decimal(value, "#,##0.00")
        case _:
            return value
