"""References of money that is sent by hand: all spellings of a reference mean the same transfer.

People read a reference from a slip or a phone and type it: in capitals or not, with spaces or hyphens between its
groups, or pasted with invisible characters. Generated ids (Stripe's) are case-sensitive and compared unchanged.
"""

import unicodedata
from typing import Final

from payments_app.errors import ValidationFailed
from payments_app.gateways.base import GatewayName
from payments_app.i18n.messages import N_

# The gateway whose references people type. Indexes name it, so it is a constant and no capability.
BY_HAND: Final = GatewayName.MANUAL

# Characters; the length of the column.
MAX_NORMALIZED_LENGTH = 255

# Spaces, controls (tabs, line ends), characters without a glyph (zero-width space, bidi marks), and hyphens and dashes.
_IGNORED_CATEGORIES = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Pd"})
# The same kinds of characters in other categories, which NFKC does not replace: minus signs, hyphen bullet and point,
# the Braille blank, and Unicode's default ignorable characters (joiners, Hangul and Khmer fillers, variation
# selectors).
_ALSO_IGNORED = frozenset("\u2212\u2796\u02d7\u2043\u2027\u2800\u034f\u115f\u1160\u17b4\u17b5\u2065") | frozenset(
    map(chr, [*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)])
)


def normalized_reference(gateway: str, reference: str) -> str | None:
    """The normalized form of a reference; None for a gateway whose ids are compared unchanged.

    NFKC (full-width and other compatible forms), case folding, and no spaces, hyphens or invisible characters. Empty
    if no other character is left.
    """
    if gateway != BY_HAND:
        return None
    # Normalized again after each step: folding can undo the normal form, and an ignored character can separate
    # characters that NFKC composes.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", reference).casefold())
    return unicodedata.normalize("NFKC", "".join(filter(_counts, folded)))


def require_comparable(gateway: str, reference: str, *, field: str) -> None:
    """Check that a reference of money by hand can be compared; ``field`` is the member that has it.

    Raises:
        ValidationFailed: nothing of it counts, or it is too long once written out (422).
    """
    normalized = normalized_reference(gateway, reference)
    if normalized == "":
        raise ValidationFailed({field: [N_("Must contain a letter or a digit.")]})
    if normalized is not None and len(normalized) > MAX_NORMALIZED_LENGTH:
        raise ValidationFailed({field: [N_("Too long when ligatures and similar characters are written out.")]})


def _counts(character: str) -> bool:
    return unicodedata.category(character) not in _IGNORED_CATEGORIES and character not in _ALSO_IGNORED
