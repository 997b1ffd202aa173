"""E-mail addresses: one address in any spelling is one user.

The same address comes in upper or lower case, with its accents as one character or as two (NFC, NFD), and with its
domain in Unicode or in ASCII. All of that is compared in one form, and stored in it.
"""

import re
import unicodedata

import idna

# The longest address that SMTP can carry (RFC 3696, erratum 1690).
MAX_LENGTH = 254

# What no database keeps as text, or no driver sends; and what stands in its place.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_INSTEAD = "\ufffd"


def normalized(email: str) -> str:
    """The form in which addresses are compared. Every text has one, also a text that is no address."""
    local, at, domain = storable(email).rpartition("@")
    return f"{_folded(local)}{at}{_ascii_domain(domain)}"


def storable(email: str) -> str:
    """The text, or if no database can keep it, one that is nobody's address."""
    return _UNSTORABLE.sub(_INSTEAD, email)


def is_address(email: str) -> bool:
    """Whether a normalized text can be a user's address."""
    local, _, domain = email.rpartition("@")
    has_parts = bool(local and domain.isascii() and domain)  # a domain that is not ASCII by now is none
    is_readable = email.isprintable() and " " not in email and _INSTEAD not in email
    return has_parts and is_readable and len(email) <= MAX_LENGTH


def _folded(text: str) -> str:
    """Canonical caseless matching (Unicode, D145), composed; then lower case, because Cherokee folds to upper case.

    So ``lower()`` of no database changes it: ``ck_users_email_lower_case`` holds whatever the database's locale is.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold().lower())


def _ascii_domain(domain: str) -> str:
    """As it stands in DNS (IDNA 2008, with the mapping of UTS 46); folded like any text if it is no domain."""
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return _folded(domain)
