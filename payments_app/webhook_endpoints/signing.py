"""Signatures of outgoing webhooks, as Standard Webhooks 1.0 describes them."""

import base64
import hashlib
import hmac
import secrets as random
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105  # nosec B105  # how a secret begins
SECRET_BYTES = 32


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(random.token_bytes(SECRET_BYTES)).decode()


def headers_of(webhook_id: str, timestamp: int, body: bytes, *, secrets: Sequence[str]) -> dict[str, str]:
    """The three headers by which a receiver verifies a body. ``timestamp``: of the attempt, seconds since 1970."""
    signed = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(secret, signed) for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"
