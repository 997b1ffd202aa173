"""Passwords: argon2id with the library's parameters (RFC 9106's low-memory profile).

Passwords are normalized to NFKC before hashing (NIST SP 800-63B): keyboards and browsers send the same characters as
different code points.
"""

import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# In place of a hash, for a user whom no password lets in: nothing verifies against it.
NO_PASSWORD = "none"  # noqa: S105  # nosec B105  # no password fits it

_hasher = PasswordHasher()


@cache
def _dummy_hash() -> str:
    return _hasher.hash("no user has this password")


def hash_password(password: str) -> str:
    """The hash to store. Takes tens of milliseconds by design."""
    return _hasher.hash(_normalized(password))


def is_correct(password: str, password_hash: str | None) -> bool:
    """Whether the password is correct. Call it outside any transaction: it takes tens of milliseconds.

    Without a hash (unknown e-mail address, or a user without a password) the result is False, after the same work.
    """
    if password_hash == NO_PASSWORD:
        password_hash = None  # verifying against it would be quicker, and so would tell that this user exists
    # Also as typed: older passwords were hashed without NFKC. Both are always tried, so that the time depends on the
    # input only, and not on the result.
    spellings = {_normalized(password), password}
    results = [_verifies(spelling, password_hash or _dummy_hash()) for spelling in spellings]
    return password_hash is not None and any(results)


def _verifies(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _normalized(password: str) -> str:
    return unicodedata.normalize("NFKC", password)
