"""Texts that people read: English in the code, and the key by which a catalogue knows them in other languages.

A ``LocalizedMessage`` is the English text itself, for logs and commands; responses translate it.
"""

from typing import Any, Self


class LocalizedMessage(str):
    """A text with its values filled in, which remembers the text without them. Placeholders as ``%(name)s``.

    Values that are texts of ours themselves, such as a status, are translated too, and a ``Decimal`` is an amount, told
    in the reader's format; others stay as they are.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, **values: Any) -> Self:
        message = super().__new__(cls, template % values if values else template)
        message.template = template
        message.values = values
        return message


def N_(text: str) -> str:  # noqa: N802  # gettext's name for: translate this, but not here
    """Mark a text for the catalogue."""
    return text
