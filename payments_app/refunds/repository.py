"""Refunds in the database: each function is one transaction's worth of work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from payments_app import clock, money
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import NotRefundable, RefundableChanged, RefundExceedsBalance, RefundNotFound, RefundRepeated
from payments_app.gateways.base import Approved, Declined, GatewayRefundRequest, OutcomeUnknown
from payments_app.gateways.capabilities import Capabilities, Refundable
from payments_app.gateways.registry import find_gateway
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.request import StoredResponse
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import OPEN, Refund
from payments_app.payments.repository import ChangeCommand, get_for_update, get_owned_for_update

Outcome = Approved | Declined | OutcomeUnknown

# What the doors make of a refund and its payment: 200, 202 or 402, as the refund's status says.
Render = Callable[[Payment, Refund], StoredResponse]


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """What is to be returned, in minor units (None: all that is left), and why.

    ``expected_refundable_minor``: how much the caller believes can be refunded; None: they say nothing of it.
    ``new_since``: a refund of the same amount, requested from then on, makes this one a repetition that is refused;
    None: the request has a key of its own to be told by, or a repetition is meant.
    """

    amount_minor: int | None
    reason: str | None
    expected_refundable_minor: int | None = None
    new_since: datetime | None = None

    def require(self, payment: Payment) -> None:
        """Raises:
        RefundableChanged: another amount can be refunded than the caller believes (409).
        """
        if self.expected_refundable_minor not in (None, payment.refundable_minor):
            left_minor = payment.refundable_minor
            raise RefundableChanged(
                left=money.to_major(left_minor), currency=payment.currency, as_number=money.to_json_number(left_minor)
            )

    def require_new(self, payment: Payment) -> None:
        """Raises:
        RefundRepeated: the same amount was requested a short time ago (409).
        """
        for refund in payment.refunds:
            if self.new_since is not None and refund.was_requested(self.amount_minor, since=self.new_since):
                amount = money.to_major(refund.amount_minor)
                raise RefundRepeated(refund_id=refund.id, amount=amount, currency=refund.currency)


@dataclass(frozen=True, slots=True)
class PendingRefund:
    """A refund that is committed, and what its gateway is to be told."""

    gateway: str
    order: GatewayRefundRequest
    created_at: datetime

    @classmethod
    def of(cls, refund: Refund) -> "PendingRefund":
        payment = refund.payment
        assert payment.transaction_id is not None  # noqa: S101  # for the type checker: money has a transaction
        order = GatewayRefundRequest(
            refund_id=refund.id,
            payment_id=payment.id,
            transaction_id=payment.transaction_id,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            reference=refund.reference,
        )
        return cls(refund.gateway, order, refund.created_at)


@write_transaction
def reserve(
    session: Session, wanted: ChangeCommand, wish: RefundRequest, *, lease_seconds: int, render: Render
) -> StoredResponse | tuple[PendingRefund, StoredResponse]:
    """Set the money aside, before the gateway hears of it: if we die in the call, resume finds a row.

    With the refund comes the answer that is true until its outcome is written.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: no admin any more (403).
        PaymentNotFound: no such payment (404).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        RefundableChanged: another amount can be refunded than the caller believes (409).
        RefundRepeated: the same amount was requested a short time ago (409).
        InvalidTransition: no money came, or all of it went back (409).
        RefundExceedsBalance: more than is neither back nor on its way back (422).
        NotRefundable: the gateway returns no money of this method, or only the whole of it (422).
        GatewayUnavailable: the payment's gateway is not configured any more (503).
    """
    payment = get_owned_for_update(session, wanted.payment_id, wanted.caller)
    answered = idempotency.find_response(session, wanted.request)
    if answered is not None:
        return answered
    wanted.conditions.require(payment)
    wish.require(payment)
    wish.require_new(payment)  # before what the first one may have left: no status to refund from, or too little money
    payment.require_refundable()
    amount_minor = payment.refundable_minor if wish.amount_minor is None else wish.amount_minor
    if not 0 < amount_minor <= payment.refundable_minor:
        raise RefundExceedsBalance(left=money.to_major(payment.refundable_minor), currency=payment.currency)
    # It has to be there, and able to do it, before anything is promised.
    _require_refundable(find_gateway(payment.gateway).capabilities, payment, amount_minor)
    refund = Refund.order(
        payment,
        amount_minor=amount_minor,
        reason=wish.reason,
        # From now on: we may have waited for a lock since the request came.
        leased_until=clock.now() + timedelta(seconds=lease_seconds),
        context=wanted.context,
    )
    session.flush()  # the one flush of this effect, which also gives the refund its id
    response = render(payment, refund)
    idempotency.store(
        session, wanted.request, response, payment_id=payment.id, refund_id=refund.id, at=wanted.context.at
    )
    return PendingRefund.of(refund), response


def _require_refundable(capabilities: Capabilities, payment: Payment, amount_minor: int) -> None:
    match capabilities.refundable(payment.payment_method):
        case Refundable.NOT:
            raise NotRefundable
        case Refundable.WHOLE if amount_minor != payment.received_minor:
            raise NotRefundable.in_parts()


@write_transaction
def settle(
    session: Session, refund_id: int, outcome: Outcome, *, wanted: ChangeCommand, render: Render
) -> StoredResponse:
    """Write down what the gateway says, and under the key what is answered."""
    payment, refund = _settled(session, refund_id, outcome, wanted.context)
    response = render(payment, refund)
    idempotency.store_final(session, wanted.request, response)
    return response


@write_transaction
def settle_resumed(session: Session, refund_id: int, outcome: Outcome, *, context: AuditContext) -> Refund:
    """Write down what the gateway says; whoever comes back with the key is told then."""
    _, refund = _settled(session, refund_id, outcome, context)
    return refund


@write_transaction
def give_up(session: Session, refund_id: int, *, context: AuditContext) -> Refund:
    """Set a refund failed that never reached its gateway; what a webhook has settled meanwhile stays as it is."""
    _, refund = _settled(session, refund_id, _GIVEN_UP, context, only_if_lost=True)
    return refund


_GIVEN_UP = Declined("It never reached the gateway, and was given up by staff.")


def _settled(
    session: Session, refund_id: int, outcome: Outcome, context: AuditContext, *, only_if_lost: bool = False
) -> tuple[Payment, Refund]:
    """Both, because a refund finds its payment only as long as somebody holds it."""
    payment_id = session.scalars(select(Refund.payment_id).where(Refund.id == refund_id)).one()
    payment = get_for_update(session, payment_id)  # of all that change a refund, one at a time
    refund = next(refund for refund in payment.refunds if refund.id == refund_id)
    if not only_if_lost or (refund.is_open and refund.reference is None):
        refund.settle(outcome, replace(context, at=clock.now()))
    session.flush()  # the one flush of this effect
    return payment, refund


@write_transaction
def acquire_lease(session: Session, refund_id: int, *, now: datetime, until: datetime) -> PendingRefund | None:
    """Lease an open refund whose lease has run out; None where somebody else is at work on it, or was, or where its
    money is still to be heard of: a refund made elsewhere may be told of before the money that it returned.

    The refund's version decides: of two that read the same one, the second reads again, and finds the lease.
    """
    refund = session.get_one(Refund, refund_id, options=[joinedload(Refund.payment)])
    if not refund.is_open or refund.leased_until > now or refund.payment.transaction_id is None:
        return None
    refund.lease(until)
    session.flush()
    return PendingRefund.of(refund)


@read_transaction
def find_open(session: Session, *, after_id: int, now: datetime, size: int) -> Sequence[int]:
    """The ids of open refunds that nobody is at work on, in their order."""
    wanted = select(Refund.id).where(Refund.status.in_(OPEN), Refund.leased_until <= now, Refund.id > after_id)
    return session.scalars(wanted.order_by(Refund.id).limit(size)).all()


@read_transaction
def count_open(session: Session, *, now: datetime) -> int:
    """How many refunds are open that nobody is at work on."""
    wanted = select(func.count()).select_from(Refund).where(Refund.status.in_(OPEN), Refund.leased_until <= now)
    return session.scalars(wanted).one()


@read_transaction
def list_newest(
    session: Session, *, status: str | None, payment_id: int | None, before_id: int | None, size: int
) -> Sequence[Refund]:
    """Refunds, newest first, from before an id on."""
    wanted = select(Refund)
    if status is not None:
        wanted = wanted.where(Refund.status == status)
    if payment_id is not None:
        wanted = wanted.where(Refund.payment_id == payment_id)
    if before_id is not None:
        wanted = wanted.where(Refund.id < before_id)
    return session.scalars(wanted.order_by(Refund.id.desc()).limit(size)).all()


@read_transaction
def get(session: Session, refund_id: int) -> Refund:
    """A refund with its payment.

    Raises:
        RefundNotFound: no such refund (404).
    """
    refund = session.get(Refund, refund_id, options=[joinedload(Refund.payment)])
    if refund is None:
        raise RefundNotFound
    return refund
