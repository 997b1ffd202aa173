"""Escapes stored values for output, so that a value cannot control a terminal or imitate another line."""

import re

# Letters and marks by category that are drawn as nothing (Unicode's Default_Ignorable_Code_Point) or as a blank:
# joiners, fillers, variation selectors.
_INVISIBLE = (
    "\N{COMBINING GRAPHEME JOINER}\N{HANGUL CHOSEONG FILLER}\N{HANGUL JUNGSEONG FILLER}\N{KHMER VOWEL INHERENT AQ}"
    "\N{KHMER VOWEL INHERENT AA}\u180b-\u180d\u180f\N{BRAILLE PATTERN BLANK}\N{HANGUL FILLER}\ufe00-\ufe0f"
    "\N{HALFWIDTH HANGUL FILLER}\U000e0100-\U000e01ef"
)
_IS_INVISIBLE = re.compile(f"[{_INVISIBLE}]")


def printable(text: str) -> str:
    r"""The text with every character that is not drawn as itself escaped, such as ``\x1b`` or ``\u202e``.

    Escaped are the characters that Python calls not printable: control and format characters (line ends, escapes,
    direction marks, joiners), every blank except the space, lone surrogates, private and unassigned characters. Letters
    of all scripts stay.
    """
    if text.isprintable() and not _IS_INVISIBLE.search(text):
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable() and not _IS_INVISIBLE.match(character):
        return character
    return character.encode("unicode_escape").decode()
