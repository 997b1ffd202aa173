"""The path of a payment link is its token: what writes paths down, writes ``/pay/*``."""

import re

# In escapes too, which the service reads as the letters that they stand for. Not the route's rule, /pay/<token>.
_LINK = re.compile(r"""(?:/|%2f)(?:p|%70)(?:a|%61)(?:y|%79)(?:/|%2f)[^\s?#"'\\<]+""", re.IGNORECASE)


def without_link_token(text: str) -> str:
    """The same path, or the same line with a path in it, with ``/pay/*`` for a link."""
    # A line without these has no link, and lines are many.
    if "%" not in text and "/pay/" not in text.lower():
        return text
    return _LINK.sub("/pay/*", text)
