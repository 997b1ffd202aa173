"""The interface of a payment gateway: methods, parameters and results. All are plain values, never database rows.

``Declined`` means that nothing happened and nothing will. ``OutcomeUnknown`` means that it may have happened, may still
happen, or may not: the caller must look it up later. A gateway that does not respond is ``OutcomeUnknown``.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from payments_app.i18n.messages import N_, LocalizedMessage


class GatewayName(StrEnum):
    """``manual``: patients send money by hand, staff confirm it. ``sandbox``: accepts everything, moves no money."""

    STRIPE = "stripe"
    PAYMONGO = "paymongo"
    MANUAL = "manual"
    SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class Approved:
    """It happened. ``reference``: the gateway's id for it. ``settled`` is False while the money is on its way."""

    reference: str
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Declined:
    """It did not happen and will not. Staff and patients may read the ``reason``.

    ``reference``: the gateway's id, if the gateway accepted it first and it failed later.
    """

    reason: str
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """No response, or a response that means neither success nor failure. ``reason`` is for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reachable:
    """The gateway responds and accepts our API key. ``at``: its clock, to the second; None if it sent no time."""

    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The money that a payment requests; ``amount_minor`` in hundredths."""

    payment_id: int
    consultation_id: int
    amount_minor: int
    currency: str
    payment_method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """A checkout that is to be opened, from a row that is committed: so a repeated call is the same to the byte.

    ``number`` counts the sessions of a payment from 1. ``expires_at``: when the session is to end; None if sessions of
    this gateway do not end by themselves. ``return_url``: where the gateway's page leads the patient back to.
    """

    charge: Charge
    number: int
    expires_at: datetime | None
    language: str
    description: str
    return_url: str | None

    @property
    def gateway_key(self) -> str:
        """The key under which the gateway opens it once."""
        return f"checkout-{self.charge.payment_id}-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPayment:
    """Money that a gateway has received.

    ``payment_id`` and ``consultation_id`` come from the gateway's own data; None if it has none.
    """

    transaction_id: str
    amount_minor: int
    currency: str
    payment_id: int | None
    consultation_id: int | None

    @classmethod
    def full_payment_of(cls, charge: Charge, transaction_id: str) -> "GatewayPayment":
        return cls(
            transaction_id=transaction_id,
            amount_minor=charge.amount_minor,
            currency=charge.currency,
            payment_id=charge.payment_id,
            consultation_id=charge.consultation_id,
        )

    def mismatch_reason(self, charge: Charge) -> str | None:
        """Why this money does not pay the charge; None if it does."""
        if (self.payment_id, self.consultation_id) != (charge.payment_id, charge.consultation_id):
            return N_("It was made for another payment.")
        if self.currency != charge.currency:
            return LocalizedMessage(
                "It is in %(found)s, not in %(wanted)s.", found=self.currency, wanted=charge.currency
            )
        if self.amount_minor != charge.amount_minor:
            return N_("Its amount is not the payment's.")
        return None


class SessionStatus(StrEnum):
    OPEN = "open"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    # It was ended, and the payment with it.
    CANCELLED = "cancelled"
    # It ended without payment; another one can be opened for the same payment.
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutSession:
    """The gateway's state of a checkout: the data that the patient needs to pay, or the result."""

    reference: str
    status: SessionStatus
    # What was paid by it; of one that is not paid, what it asks for.
    money: GatewayPayment
    # Where the patient pays, on the gateway's own page: whoever has it can pay there.
    redirect_url: str | None = field(default=None, repr=False)
    # Only for the patient's own device: it is enough to pay with.
    client_secret: str | None = field(default=None, repr=False)
    instructions: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRefundRequest:
    """Money to return. ``reference`` is the gateway's id for the refund, if it is known already."""

    refund_id: int
    payment_id: int
    transaction_id: str
    amount_minor: int
    currency: str
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRefund:
    """The gateway's state of a refund. ``refund_id`` and ``payment_id`` are None if it was not made by this service."""

    reference: str
    # None: the money does not belong to one of our payments.
    transaction_id: str | None
    amount_minor: int
    currency: str
    refund_id: int | None
    payment_id: int | None
    outcome: Approved | Declined


class Gateway(Protocol):
    """Every call may be repeated: its idempotency key at the gateway is made from our own id, so it has one effect."""

    def minor_digits(self, currency: str) -> int:
        """How many decimals the gateway's integer amounts of a currency have; 2 is hundredths, as in this service."""
        ...

    def open_session(self, charge: Charge) -> CheckoutSession | Declined | OutcomeUnknown:
        """Open a checkout for the charge, or return the one that an earlier call opened."""
        ...

    def look_up(self, charge: Charge, transaction_id: str) -> CheckoutSession | Declined | OutcomeUnknown:
        """The state of a transaction that a caller presents as payment; Declined: it does not exist."""
        ...

    def look_up_session(self, charge: Charge, reference: str) -> CheckoutSession | Declined | OutcomeUnknown:
        """The current state of a session; Declined: it does not exist."""
        ...

    def cancel_session(self, charge: Charge, reference: str) -> CheckoutSession | Declined | OutcomeUnknown:
        """Cancel the session, so that it can no longer be paid.

        A session that cannot be cancelled is returned as it is, ``succeeded`` or ``processing``. Declined: it does not
        exist.
        """
        ...

    def refund(self, order: GatewayRefundRequest) -> Approved | Declined | OutcomeUnknown:
        """Send money back to the patient."""
        ...

    def look_up_refund(self, order: GatewayRefundRequest) -> Approved | Declined | OutcomeUnknown | None:
        """The state of a refund. None: the gateway does not know it. Declined: it failed."""
        ...


def verify(charge: Charge, session: CheckoutSession) -> Approved | Declined:
    """Approved if the session pays the charge: it has succeeded, and amount, currency and ids match."""
    if session.status != SessionStatus.SUCCEEDED:
        return Declined(
            LocalizedMessage("The gateway says that it is %(status)s, not paid.", status=session.status.value)
        )
    reason = session.money.mismatch_reason(charge)
    return Approved(session.money.transaction_id) if reason is None else Declined(reason)
