"""References of money that people send by hand, compared as a person would compare them.

A reference is read from a slip or a phone and typed: in capitals or not, with blanks or hyphens between its groups, or
pasted with characters that nobody sees. All such spellings name the same transfer. Ids that a machine makes (Stripe's)
are compared as they are: there, case does matter.
"""

import unicodedata
from typing import Final

from payments_app.gateways.base import GatewayName

# The gateway whose references people type. Indexes name it, so it is a constant and no capability.
BY_HAND: Final = GatewayName.MANUAL

# What the column holds.
MAX_NORMALIZED_LENGTH = 255

# Spaces, controls (tabs, line ends), characters without a glyph (zero-width space, bidi marks), and hyphens and dashes.
_IGNORED_CATEGORIES = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Pd"})
# The same kinds under other categories, as NFKC leaves them: minus signs, hyphen bullet and point, a blank of Braille,
# and what Unicode calls default ignorable (joiners, Hangul and Khmer fillers, variation selectors).
_ALSO_IGNORED = frozenset("\u2212\u2796\u02d7\u2043\u2027\u2800\u034f\u115f\u1160\u17b4\u17b5\u2065") | frozenset(
    map(chr, [*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)])
)


def normalized_reference(gateway: str, reference: str) -> str | None:
    """The one spelling that all spellings of a reference share; None for a gateway that is a machine.

    NFKC (full-width and other compatible forms), case folding, and no spaces, hyphens or invisible characters. Empty
    if nothing else is in it.
    """
    if gateway != BY_HAND:
        return None
    # Folding can undo the normal form, and what is ignored can keep characters apart that belong together.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", reference).casefold())
    return unicodedata.normalize("NFKC", "".join(filter(_counts, folded)))


def _counts(character: str) -> bool:
    return unicodedata.category(character) not in _IGNORED_CATEGORIES and character not in _ALSO_IGNORED
