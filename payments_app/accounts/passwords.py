"""Passwords: argon2id with the library's parameters (RFC 9106's low-memory profile)."""

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_hasher = PasswordHasher()


@cache
def _nobodys_hash() -> str:
    return _hasher.hash("the password of nobody")


def hash_password(password: str) -> str:
    """The text to keep. Takes tens of milliseconds by design."""
    return _hasher.hash(password)


def is_correct(password: str, password_hash: str | None) -> bool:
    """Whether the password fits. Call it outside any transaction.

    For no hash, as of an unknown e-mail address, the answer is False and the work the same.
    """
    try:
        _hasher.verify(password_hash or _nobodys_hash(), password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None
