"""What is stored may be strange; what is printed never is: a value cannot paint a terminal, or pose as another line."""

import re

# Letters and marks by their category, but drawn as nothing (Unicode's Default_Ignorable_Code_Point), or as a blank:
# joiners, fillers, selectors of variants.
_UNSEEN = (
    "\N{COMBINING GRAPHEME JOINER}\N{HANGUL CHOSEONG FILLER}\N{HANGUL JUNGSEONG FILLER}\N{KHMER VOWEL INHERENT AQ}"
    "\N{KHMER VOWEL INHERENT AA}\u180b-\u180d\u180f\N{BRAILLE PATTERN BLANK}\N{HANGUL FILLER}\ufe00-\ufe0f"
    "\N{HALFWIDTH HANGUL FILLER}\U000e0100-\U000e01ef"
)
_IS_UNSEEN = re.compile(f"[{_UNSEEN}]")


def printable(text: str) -> str:
    r"""The text with all that is not drawn as itself written as ``\x1b`` or ``\u202e``.

    That is what Python calls not printable: control and format characters (line ends, escapes, turns of direction,
    joiners), every blank but the common one, lone surrogates, what is private or unassigned. Letters of all scripts
    stay.
    """
    if text.isprintable() and not _IS_UNSEEN.search(text):
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable() and not _IS_UNSEEN.match(character):
        return character
    return character.encode("unicode_escape").decode()
