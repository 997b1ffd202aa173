"""Display names of users: staff read them on screens, in terminals and on paper."""

import re
import unicodedata

MAX_LENGTH = 200

# Control characters (C0, C1), surrogates, and separators of lines and paragraphs.
_REFUSED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
# These change the direction of the text after them, so a name would be displayed differently from what is stored.
# Direction marks, which do not affect the text after them, and joiners are allowed: some scripts need them.
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")

# The same for documents and their readers, whose patterns know no surrogates. It has no lookahead: a program that makes
# texts by a pattern cannot read one, and makes blank names until one happens to fit.
_REFUSED = r"\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069"
PATTERN = rf"^[^{_REFUSED}]*[^\s{_REFUSED}][^{_REFUSED}]*$"


def is_name(name: str) -> bool:
    """Whether a name can be stored and shown: 1 to 200 characters, not blank, no control characters."""
    has_control = _BIDI_CONTROLS.search(name) or any(unicodedata.category(c) in _REFUSED_CATEGORIES for c in name)
    return 1 <= len(name) <= MAX_LENGTH and bool(name.strip()) and not has_control
