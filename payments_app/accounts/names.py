"""Names of people, as staff read them on screens, in terminals and on paper."""

import re
import unicodedata

MAX_LENGTH = 200

# Control characters (C0, C1), surrogates, and separators of lines and paragraphs.
_REFUSED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
# They turn the direction of the text after them: a name would be read otherwise than it is stored. Marks of direction,
# which turn nothing after them, and joiners belong to names of some scripts.
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def is_name(name: str) -> bool:
    """Whether it can be stored and shown: 1 to 200 characters, not blank, none of them a control."""
    has_control = _BIDI_CONTROLS.search(name) or any(unicodedata.category(c) in _REFUSED_CATEGORIES for c in name)
    return 1 <= len(name) <= MAX_LENGTH and bool(name.strip()) and not has_control
