"""Capabilities of a gateway, as data: code asks these and never a gateway's name."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class CheckoutKind(StrEnum):
    """What a patient gets to pay by: the gateway's own page, a secret for a form of the page, or instructions."""

    REDIRECT = "redirect"
    CLIENT_SECRET = "client_secret"  # noqa: S105  # nosec B105  # a kind, no secret
    INSTRUCTIONS = "instructions"


# For gateways whose calls have no effect outside this service: a repeated call never differs from the first one.
FOREVER_SECONDS = 1_000_000_000


# How much earlier than a gateway forgets a key we take it for forgotten: clocks differ, and calls take their time.
KEY_MARGIN = timedelta(hours=1)


class Refundable(StrEnum):
    """How money of a payment method can be returned."""

    IN_PARTS = "in_parts"
    WHOLE = "whole"
    NOT = "not"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one gateway can do; times in seconds."""

    # The payment methods that it carries, and how each can be refunded.
    methods: Mapping[str, Refundable]
    # None: every currency that is counted in hundredths.
    currencies: Set[str] | None
    checkout: CheckoutKind
    # For how long the gateway surely answers a repeated call with the same key as it answered the first one. None: not
    # at all, so a call whose response was lost is never sent again by itself.
    remembers_keys_seconds: int | None
    # The shortest and the longest life that a session can be given. None: sessions do not end by themselves.
    session_seconds: tuple[int, int] | None
    # Whether a session can be ended before its time, so that nobody can pay by it any more.
    ends_sessions: bool
    # Whether the money moves at a service that can be asked: otherwise staff alone confirm payments, and send refunds.
    can_be_asked: bool
    # Whether real money moves, if its key is a live one.
    moves_money: bool = True

    def remembers_key(self, age: timedelta) -> bool:
        """Whether a key that was first sent so long ago surely makes a repeated call the same call."""
        if self.remembers_keys_seconds is None:
            return False
        return age < timedelta(seconds=self.remembers_keys_seconds) - KEY_MARGIN

    def refundable(self, method: str) -> Refundable:
        """How money of that method is refunded. A method that it no longer carries is refunded as it always was."""
        return self.methods.get(method, Refundable.IN_PARTS)
