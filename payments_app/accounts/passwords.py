"""Passwords: argon2id with the library's parameters (RFC 9106's low-memory profile).

They are hashed in NFKC (NIST SP 800-63B): keyboards and browsers send the same characters in other code points.
"""

import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_hasher = PasswordHasher()


@cache
def _nobodys_hash() -> str:
    return _hasher.hash("the password of nobody")


def hash_password(password: str) -> str:
    """The text to keep. Takes tens of milliseconds by design."""
    return _hasher.hash(_normalized(password))


def is_correct(password: str, password_hash: str | None) -> bool:
    """Whether the password fits. Call it outside any transaction.

    For no hash, as of an unknown e-mail address, the answer is False and the work the same.
    """
    # As typed too: that is how it was hashed before. Both are always tried, so that the work depends on what was typed
    # and not on whether it fits.
    spellings = {_normalized(password), password}
    fits = [_fits(spelling, password_hash or _nobodys_hash()) for spelling in spellings]
    return password_hash is not None and any(fits)


def _fits(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _normalized(password: str) -> str:
    return unicodedata.normalize("NFKC", password)
