"""The interface of a payment gateway: methods, parameters and results. All are plain values, never database rows.

``Declined`` means that nothing happened and nothing will. ``OutcomeUnknown`` means that it may have happened, may still
happen, or may not: the caller must look it up later. A gateway that does not respond is ``OutcomeUnknown``.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from payments_app.gateways.capabilities import Capabilities
from payments_app.i18n.messages import N_, LocalizedMessage

if TYPE_CHECKING:
    from payments_app.gateways.events import GatewayEvent


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
    ``transaction_id`` is None before the patient has begun to pay: some gateways have no transaction until then.
    """

    transaction_id: str | None
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
    # The gateway's own page, on which the patient pays: it is enough to pay with.
    redirect_url: str | None = field(default=None, repr=False)
    # Only for the patient's own device: it is enough to pay with.
    client_secret: str | None = field(default=None, repr=False)
    instructions: str | None = None

    @property
    def can_be_continued(self) -> bool:
        """Whether the patient is given something to pay by."""
        return any((self.redirect_url, self.client_secret, self.instructions))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRefundRequest:
    """Money to return. ``reference`` is the gateway's id for the refund, if it is known already.

    ``other_references``: the gateway's ids for the payment's other refunds. A look-up never takes one of them for this
    refund, also if the gateway does not say whose it is.
    """

    refund_id: int
    payment_id: int
    transaction_id: str
    amount_minor: int
    currency: str
    reference: str | None = None
    other_references: frozenset[str] = frozenset()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPayment:
    """A payment as a gateway lists it, also one that failed. ``reference`` is its transaction, or else its own id.

    ``is_paid``: whether the money came, however much of it was returned later; None for a status that is new to us.
    """

    reference: str
    money: GatewayPayment
    is_paid: bool | None


class Gateway(Protocol):
    """One gateway. Every call that has an effect carries a gateway key made of our own ids.

    A request holds a ``place`` before it writes what it does before its calls; a call that holds none takes one itself.

    A gateway that remembers such keys (``capabilities.remembers_keys_seconds``) performs a repeated call once.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What it can do. Code asks this, and never which gateway it is."""
        ...

    def place(self) -> AbstractContextManager[None]:
        """One of the places for requests that call it; nothing for a gateway that is not called over the network.

        A block of the same thread within it has the same place.

        Raises:
            GatewayUnavailable: it did not answer the last calls, and is not called for now (503).
            GatewayBusy: as many requests as may are in calls to gateways (503).
        """
        ...

    def minor_digits(self, currency: str) -> int:
        """How many decimals the gateway's integer amounts of a currency have; 2 is hundredths, as in this service."""
        ...

    def open_session(self, request: SessionRequest) -> CheckoutSession | Declined | OutcomeUnknown:
        """Open a checkout, or return the one that an earlier call with the same gateway key opened."""
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

    def ping(self) -> Reachable | Declined | OutcomeUnknown:
        """Whether the gateway answers and accepts our key (Declined: it does not). Has no effect."""
        ...


class Headers(Protocol):
    """The headers of a request, whatever case their names are written in."""

    def get(self, name: str, /) -> str | None: ...


@runtime_checkable
class EventSource(Protocol):
    """A gateway that sends webhooks."""

    @property
    def livemode(self) -> bool | None:
        """Whether our key is one of live mode, in which money moves; None if it does not tell."""
        ...

    @property
    def has_webhook_secret(self) -> bool:
        """Whether a secret is configured. Without one every event is refused."""
        ...

    def read_event(self, body: bytes, headers: Headers, *, received_at: datetime) -> "GatewayEvent | OutcomeUnknown":
        """Read a webhook's body; may ask the gateway what became of the object. Not to be called in a transaction.

        OutcomeUnknown: the gateway did not answer, and has to send the event again.

        Raises:
            InvalidSignature: not signed by the gateway within the last 300 seconds.
            OtherMode: the event or its object is of the other mode than our key.
            GatewayUnavailable, GatewayBusy: it would have to be asked, and there is no place for that (503).
        """
        ...

    def look_up_money(self, transaction_id: str) -> GatewayPayment | OutcomeUnknown | None:
        """Ask what a transaction is for. Not to be called in a transaction.

        None: the gateway has no such transaction, or it cannot be read. OutcomeUnknown: the gateway did not answer.

        Raises:
            GatewayUnavailable, GatewayBusy: there is no place for the call (503).
        """
        ...


@runtime_checkable
class PaymentLists(Protocol):
    """A gateway that lists what it did, so that its books can be compared with ours. Not to be called in a transaction.

    Raises, each of its methods and iterators:
        GatewayUnavailable: it did not answer, refused to, or said what cannot be read: nothing of the list is to be
            believed (503).
    """

    def list_payments(self, since: datetime, until: datetime) -> Iterator[ListedPayment]:
        """Every payment that it created from ``since`` to before ``until``; to the second."""
        ...

    def list_refunds(self, since: datetime, until: datetime) -> Iterator[GatewayRefund]:
        """Every refund that it created in that time."""
        ...

    def find_listed_payment(self, reference: str) -> ListedPayment | None:
        """One payment, by the reference that a list names; None if the gateway has none of that reference."""
        ...

    def find_listed_refund(self, reference: str) -> GatewayRefund | None:
        """One refund; None if the gateway has none of that reference."""
        ...


def verify(charge: Charge, session: CheckoutSession) -> Approved | Declined:
    """Approved if the session pays the charge: it has succeeded, and amount, currency and ids match."""
    if session.status != SessionStatus.SUCCEEDED:
        return Declined(
            LocalizedMessage("The gateway says that it is %(status)s, not paid.", status=session.status.value)
        )
    if session.money.transaction_id is None:
        return Declined(N_("The gateway names no transaction."))
    reason = session.money.mismatch_reason(charge)
    return Approved(session.money.transaction_id) if reason is None else Declined(reason)
