"""What gateways send us: events, read by each gateway's adapter into these plain values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from payments_app.gateways.base import CheckoutSession, GatewayPayment, GatewayRefund


class InvalidSignature(Exception):
    """Not signed by the gateway, or not now."""


class OtherMode(Exception):
    """Not of our key's mode: in test mode no money moves, and in live mode it does."""

    def __init__(self, reference: str) -> None:
        super().__init__(reference)
        self.reference = reference


@dataclass(frozen=True, slots=True)
class PaymentAttemptFailed:
    """The patient's card was declined; the same session may still succeed."""

    session: CheckoutSession


@dataclass(frozen=True, slots=True)
class MoneyReceived:
    """Money that arrived, from an event that does not name the session by which it was paid."""

    money: GatewayPayment


@dataclass(frozen=True, slots=True)
class MoneyOnItsWay:
    """Money that may take days, from an event that does not name the session by which it was paid."""

    money: GatewayPayment


@dataclass(frozen=True, slots=True)
class NotBelieved:
    """Money that arrived by an event's account, and not by the gateway's own answer, for longer than it may be late."""

    reference: str
    money: GatewayPayment


@dataclass(frozen=True, slots=True)
class ChargeRefunded:
    """How much of a payment is returned or on its way back by now, and, in some versions of the API, by what."""

    transaction_id: str | None
    returned_minor: int
    currency: str
    refunds: tuple[GatewayRefund, ...]
    # What it was paid for, by the gateway's own account: it may be told of before the money is.
    payment_id: int | None = None
    consultation_id: int | None = None


class DisputeStatus(StrEnum):
    """How far a dispute is. Inquiries block nothing; an open or lost dispute blocks refunds."""

    INQUIRY = "inquiry"
    INQUIRY_CLOSED = "inquiry_closed"
    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayDispute:
    """A dispute as the gateway describes it. ``transaction_id``: the payment's, None if the gateway names none.

    ``payment_id`` and ``consultation_id`` are ours, as they stand on the payment at the gateway (None: not there, or
    the gateway was not asked): by them a dispute is found that overtakes the news of its money.
    """

    reference: str
    transaction_id: str | None
    amount_minor: int
    currency: str
    reason: str | None
    status: DisputeStatus
    due_at: datetime | None
    payment_id: int | None = None
    consultation_id: int | None = None


EventPayload = (
    CheckoutSession
    | PaymentAttemptFailed
    | MoneyReceived
    | MoneyOnItsWay
    | NotBelieved
    | GatewayRefund
    | ChargeRefunded
    | GatewayDispute
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayEvent:
    """An event that is the gateway's.

    ``payload`` is None if the event is about nothing that we follow, and if it cannot be read. Only an event that is
    certainly about nothing that we follow counts as readable without a payload. ``is_followed`` is False if it is about
    nothing that we follow, and money may hang on it all the same: an operator has to look.
    """

    event_id: str
    type: str
    reference: str
    created_at: datetime
    payload: EventPayload | None
    is_readable: bool
    is_followed: bool = True
