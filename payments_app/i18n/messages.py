"""Translatable texts. The English text in the code is also the key in the translation catalogue.

A ``LocalizedMessage`` is the English text itself, as logs and commands show it; responses translate it.
"""

from typing import Any, Self


class LocalizedMessage(str):
    """A text with its values filled in, and its template. Placeholders are ``%(name)s``.

    ``translate`` also translates values that are texts, such as a status, and formats a ``Decimal`` as an amount in the
    reader's format. Other values stay as they are.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, **values: Any) -> Self:
        message = super().__new__(cls, template % values if values else template)
        message.template = template
        message.values = values
        return message


def N_(text: str) -> str:  # noqa: N802  # gettext's usual name for a text that is translated later
    """Mark a text for the translation catalogue; returns it unchanged."""
    return text
