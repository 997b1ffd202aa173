"""E-mail addresses: all spellings of one address are the same user.

An address may be typed in upper or lower case, with accents as one character or as two (NFC, NFD), and with its domain
in Unicode or in ASCII. All spellings are normalized to one form, which is stored and compared.
"""

import re
import unicodedata

import idna

# The longest address that SMTP can carry (RFC 3696, erratum 1690).
MAX_LENGTH = 254

# Characters that a database or a driver cannot store as text, and their replacement.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def normalized(email: str) -> str:
    """The form in which addresses are stored and compared. Defined for every text, even if it is not an address."""
    local, at, domain = storable(email).rpartition("@")
    return f"{_folded(local)}{at}{_ascii_domain(domain)}"


def storable(email: str) -> str:
    """The text itself; if it cannot be stored, a text that is no valid address."""
    return _UNSTORABLE.sub(_REPLACEMENT, email)


def is_address(email: str) -> bool:
    """Whether a normalized text can be a user's address."""
    local, _, domain = email.rpartition("@")
    has_parts = bool(local and domain.isascii() and domain)  # not ASCII after normalization: not a domain
    is_readable = email.isprintable() and " " not in email and _REPLACEMENT not in email
    return has_parts and is_readable and len(email) <= MAX_LENGTH


def _folded(text: str) -> str:
    """Canonical caseless matching (Unicode, D145), composed; then lower case, because Cherokee folds to upper case.

    A database's ``lower()`` therefore never changes it: ``ck_users_email_lower_case`` holds in every locale.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold().lower())


def _ascii_domain(domain: str) -> str:
    """The domain as in DNS (IDNA 2008, with the mapping of UTS 46); if it is not a domain, folded like other text."""
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return _folded(domain)
