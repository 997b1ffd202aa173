"""A request with its idempotency key and fingerprint, and the response that is stored under the key."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from payments_app.accounts.caller import Caller

if TYPE_CHECKING:
    from payments_app.idempotency.models import IdempotencyKey


@dataclass(frozen=True)
class IdempotentRequest:
    """One user's request under one key. ``parameters`` holds plain JSON values, validated and normalised.

    ``render_current`` makes a response from the present state; it is used if the first response was pruned. With
    ``replays_current_state`` it is used for every replay.
    """

    caller: Caller
    key: str
    operation: str
    parameters: dict[str, Any]
    render_current: Callable[["IdempotencyKey"], "StoredResponse"] = field(compare=False)
    replays_current_state: bool = False

    @property
    def user_id(self) -> int:
        return self.caller.user_id

    @cached_property
    def canonical(self) -> str:
        """The request as canonical JSON: independent of the order of its members and the notation of its amounts."""
        return json.dumps(self.parameters, sort_keys=True, separators=(",", ":"))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the operation and the canonical request."""
        return hashlib.sha256(f"{self.operation}\n{self.canonical}".encode()).hexdigest()

    def fields_that_differ(self, operation: str, canonical: str | None) -> list[str]:
        """Names of the fields in which this request differs from the first one with this key."""
        if operation != self.operation:
            return ["operation"]
        if canonical is None:  # pruned: only its hash is stored
            return ["idempotency_key"]
        first = json.loads(canonical)
        return sorted(
            name for name in first.keys() | self.parameters.keys() if first.get(name) != self.parameters.get(name)
        )

    def row(
        self, response: "StoredResponse", *, payment_id: int, refund_id: int | None = None, at: datetime
    ) -> dict[str, Any]:
        """The key's row, for the transaction of the effect."""
        return {
            "user_id": self.user_id,
            "key": self.key,
            "operation": self.operation,
            "request": self.canonical,
            "request_hash": self.fingerprint,
            "payment_id": payment_id,
            "refund_id": refund_id,
            "response_status": response.status,
            "response_body": response.body if response.store_body else None,
            "created_at": at,
        }


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A finished response, stored under a key, and sent unchanged the first time and every time after.

    ``body`` is the JSON text itself, so that a replay is identical to the byte. Without ``store_body`` only the status
    is stored, because the body holds a secret.
    """

    status: int
    body: str
    replayed: bool = False
    store_body: bool = True

    def as_replay(self) -> "StoredResponse":
        """The same response, marked as a replay."""
        return replace(self, replayed=True)
