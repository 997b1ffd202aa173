"""In whose language: English, or Indonesian where the reader prefers it (``Accept-Language``, RFC 9110, 12.5.4)."""

from decimal import Decimal
from functools import lru_cache
from typing import Any

from babel import negotiate_locale
from flask import Flask, current_app, g, has_request_context, request
from flask_babel import Babel, format_decimal, get_translations
from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

from payments_app.texts import Message

LANGUAGES = ("en", "id")


def init_app(app: Flask) -> None:
    Babel(app, default_locale="en", locale_selector=reader_language)


def reader_language() -> str:
    """The language of whoever is to read the answer, as far as we speak it; else ``DEFAULT_LOCALE``.

    A door where readers choose theirs in another way notes it as ``g.language``.
    """
    default: str = current_app.config["SETTINGS"].default_locale
    if not has_request_context():
        return "en"  # operators read commands and logs; both are English
    return g.get("language") or _negotiated(request.headers.get("Accept-Language", "")) or default


@lru_cache(1_024)  # browsers of one clinic ask for few different things; gunicorn takes 8 KiB of a header
def _negotiated(header: str) -> str | None:
    accepted = parse_accept_header(header, LanguageAccept)
    wanted = [language for language, quality in accepted if quality > 0]  # the most wanted first
    return negotiate_locale(wanted, LANGUAGES, sep="-")


def told(text: str) -> str:
    """A text of ours in the reader's language, with the values that it was made with."""
    if not isinstance(text, Message):
        return _translated(text, reader_language())
    translated = _translated(text.template, reader_language())
    return translated % {name: _told_value(value) for name, value in text.values.items()}


@lru_cache(2_048)  # all our texts in all our languages, several times over
def _translated(text: str, _language: str) -> str:
    return str(get_translations().ugettext(text))


def _told_value(value: Any) -> Any:
    match value:
        case str():
            return told(value)
        case Decimal():  # an amount
            return format_decimal(value, "#,##0.00")
        case _:
            return value
