"""The text of an API key: a prefix, 43 random characters and a checksum, such as ``cpk_4fT...Qz1x8Rk2``.

Secret scanners find leaked keys by the prefix, and tell them from other text by the checksum without asking us.
"""

import hashlib
import re
import secrets
import string
import zlib

PREFIX = "cpk_"

# 256 bits: they cannot be guessed, so one round of SHA-256 is enough to store them.
_RANDOM_BYTES = 32

# Enough digits to the base of 62 for the 32 bits of a CRC.
_CHECKSUM_LENGTH = 6

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY = re.compile(rf"({PREFIX}[A-Za-z0-9_-]{{43}})([A-Za-z0-9]{{{_CHECKSUM_LENGTH}}})")

# Characters of a key that lists show, so that its owner can tell it from others: the prefix and 48 of its 256 bits.
SHOWN_LENGTH = len(PREFIX) + 8


def new_key() -> str:
    body = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return body + _checksum(body)


def is_key(text: str) -> bool:
    """Whether the text has the form and the checksum of a key: what has not is refused without asking the database."""
    found = _KEY.fullmatch(text)
    return found is not None and _checksum(found[1]) == found[2]


def hash_of(key: str) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
