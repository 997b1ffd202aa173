"""A request under its key, its fingerprint, and the answer that the key will give from then on."""

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
    """What one user asks for under one key. ``parameters`` holds plain JSON values, validated and normalised.

    ``render_current`` answers with what has become of the effect, for when the first answer was dropped for its age; a
    request that ``replays_current_state`` its effect is answered so from the first repetition on.
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
        """The request as the same text, however its members were ordered or its amounts written."""
        return json.dumps(self.parameters, sort_keys=True, separators=(",", ":"))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the operation and the canonical request."""
        return hashlib.sha256(f"{self.operation}\n{self.canonical}".encode()).hexdigest()

    def fields_that_differ(self, operation: str, canonical: str | None) -> list[str]:
        """The fields in which this request differs from the one the key was used for."""
        if operation != self.operation:
            return ["operation"]
        if canonical is None:  # long ago: only its hash was kept
            return ["idempotency_key"]
        first = json.loads(canonical)
        return sorted(
            name for name in first.keys() | self.parameters.keys() if first.get(name) != self.parameters.get(name)
        )

    def row(
        self, response: "StoredResponse", *, payment_id: int, refund_id: int | None = None, at: datetime
    ) -> dict[str, Any]:
        """The key's row, which is to be committed with the effect."""
        return {
            "user_id": self.user_id,
            "key": self.key,
            "operation": self.operation,
            "request": self.canonical,
            "request_hash": self.fingerprint,
            "payment_id": payment_id,
            "refund_id": refund_id,
            "response_status": response.status,
            "response_body": response.body if response.kept else None,
            "created_at": at,
        }


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A finished answer: kept under a key, and sent as it is, the first time and every time after.

    ``body`` is the JSON text itself, so that a replay is the same to the byte. One that is not ``kept`` leaves only
    its status under the key, because the body holds a secret.
    """

    status: int
    body: str
    replayed: bool = False
    kept: bool = True

    def as_replay(self) -> "StoredResponse":
        """The same answer, marked as given for something that had happened before."""
        return replace(self, replayed=True)
