"""Refunds in the database. Each public function is one transaction."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
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
from payments_app.invoices.models import Invoice
from payments_app.payments.models.credit_note import issue_or_void
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import OPEN, Refund, RefundStatus
from payments_app.payments.repository import ChangeCommand, get_for_update, get_owned_for_update, lock_payment

Outcome = Approved | Declined | OutcomeUnknown

# Makes the response from a payment and its refund: 200, 202 or 402, by the refund's status.
Render = Callable[[Payment, Refund], StoredResponse]


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """The amount to refund, in minor units (None: all that can be refunded), and the reason.

    ``expected_refundable_minor``: how much can be refunded, according to the caller; None: no expectation.
    ``new_since``: this refund is refused as a repetition if one of the same amount was requested at or after this time;
    None: do not check, because the request has a key of its own, or a second refund is intended.
    """

    amount_minor: int | None
    reason: str | None
    expected_refundable_minor: int | None = None
    new_since: datetime | None = None

    def require(self, payment: Payment) -> None:
        """Check the expected refundable amount.

        Raises:
            RefundableChanged: the refundable amount is not the expected one (409).
        """
        if self.expected_refundable_minor not in (None, payment.refundable_minor):
            left_minor = payment.refundable_minor
            raise RefundableChanged(
                left=money.to_major(left_minor), currency=payment.currency, as_number=money.to_json_number(left_minor)
            )

    def require_new(self, payment: Payment) -> None:
        """Check that this is no repetition.

        Raises:
            RefundRepeated: the same amount was requested a short time ago (409).
        """
        for refund in payment.refunds:
            if self.new_since is not None and refund.was_requested(self.amount_minor, since=self.new_since):
                amount = money.to_major(refund.amount_minor)
                raise RefundRepeated(refund_id=refund.id, amount=amount, currency=refund.currency)


@dataclass(frozen=True, slots=True)
class PendingRefund:
    """A committed refund, with the request for its gateway."""

    gateway: str
    request: GatewayRefundRequest
    created_at: datetime
    # False while the payment is disputed: the refund may be looked up, and is not sent.
    may_be_sent: bool

    @classmethod
    def of(cls, refund: Refund, other_references: frozenset[str] = frozenset()) -> "PendingRefund":
        payment = refund.payment
        assert payment.transaction_id is not None  # noqa: S101  # for the type checker: money has a transaction
        request = GatewayRefundRequest(
            refund_id=refund.id,
            payment_id=payment.id,
            transaction_id=payment.transaction_id,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            reference=refund.reference,
            other_references=other_references,
        )
        return cls(refund.gateway, request, refund.created_at, may_be_sent=not payment.is_disputed)


@write_transaction
def reserve(
    session: Session,
    change: ChangeCommand,
    refund_request: RefundRequest,
    *,
    lease_seconds: int,
    render: Render,
    place: ExitStack,
) -> StoredResponse | tuple[PendingRefund, StoredResponse]:
    """Reserve the money before the gateway is called: if the process dies during the call, resume finds the row.

    Returns the refund and the response that is valid until its outcome is written; or the response stored for the key.
    ``place`` holds the request's place at the gateway, which is taken before the first write.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user is no longer an admin (403).
        PaymentNotFound: no such payment (404).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        PaymentDisputed: the patient's bank took the money back, or may do so (409).
        RefundableChanged: the refundable amount is not the expected one (409).
        RefundRepeated: the same amount was requested a short time ago (409).
        InvalidTransition: no money was received, or all of it was refunded (409).
        RefundExceedsBalance: the amount is more than can be refunded (422).
        NotRefundable: the gateway returns no money of this method, or only the whole of it (422).
        GatewayUnavailable: the payment's gateway is no longer configured, or is silent (503).
        GatewayBusy: no place at the gateway (503).
    """
    payment = get_owned_for_update(session, change.payment_id, change.caller)
    stored = idempotency.find_response(session, change.request)
    if stored is not None:
        return stored
    change.conditions.require(payment)
    payment.require_undisputed()  # before the amounts: of disputed money, no amount can be refunded
    refund_request.require(payment)
    refund_request.require_new(
        payment
    )  # first: after the first refund the status or the balance may not allow another, and those errors mislead
    payment.require_refundable()
    amount_minor = payment.refundable_minor if refund_request.amount_minor is None else refund_request.amount_minor
    if not 0 < amount_minor <= payment.refundable_minor:
        raise RefundExceedsBalance(left=money.to_major(payment.refundable_minor), currency=payment.currency)
    # The gateway must be configured, and able to make the refund, before it is committed.
    gateway = find_gateway(payment.gateway)
    _require_refundable(gateway.capabilities, payment, amount_minor)
    # Waits for nothing, and before the first write: without a place, this transaction is rolled back empty.
    place.enter_context(gateway.place())
    refund = Refund.order(
        payment,
        amount_minor=amount_minor,
        reason=refund_request.reason,
        # From now, not from the start of the request, which may have waited for a lock.
        leased_until=clock.now() + timedelta(seconds=lease_seconds),
        context=change.context,
    )
    session.flush()  # the one flush of this effect; it also assigns the refund's id
    response = render(payment, refund)
    idempotency.store(
        session, change.request, response, payment_id=payment.id, refund_id=refund.id, at=change.context.at
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
    session: Session, refund_id: int, outcome: Outcome, *, change: ChangeCommand, render: Render
) -> StoredResponse:
    """Write the gateway's outcome, and store the final response under the key."""
    payment, refund = _settled(session, refund_id, outcome, change.context)
    response = render(payment, refund)
    idempotency.store_final(session, change.request, response)
    return response


@write_transaction
def settle_resumed(session: Session, refund_id: int, outcome: Outcome, *, context: AuditContext) -> Refund:
    """Write the gateway's outcome. A later replay of the key renders the new state."""
    _, refund = _settled(session, refund_id, outcome, context)
    return refund


@write_transaction
def give_up(session: Session, refund_id: int, *, context: AuditContext) -> Refund:
    """Mark a refund failed that never reached its gateway. If a webhook has settled it meanwhile, nothing changes."""
    _, refund = _settled(session, refund_id, _GIVEN_UP, context, only_if_lost=True)
    return refund


_GIVEN_UP = Declined("It never reached the gateway, and was given up by staff.")


def _settled(
    session: Session, refund_id: int, outcome: Outcome, context: AuditContext, *, only_if_lost: bool = False
) -> tuple[Payment, Refund]:
    """The payment and the refund. Both are returned, because the session holds the payment only weakly."""
    payment_id = session.scalars(select(Refund.payment_id).where(Refund.id == refund_id)).one()
    payment = get_for_update(session, payment_id)  # locked: only one process at a time changes a refund
    refund = next(refund for refund in payment.refunds if refund.id == refund_id)
    if not only_if_lost or (refund.is_open and refund.reference is None):
        refund.settle(outcome, replace(context, at=clock.now()))
    session.flush()  # the one flush of this effect
    return payment, refund


@write_transaction
def acquire_lease(
    session: Session, refund_id: int, *, now: datetime, until: datetime, place: ExitStack
) -> PendingRefund | None:
    """Lease an open refund whose lease has expired. Returns None if the refund is settled, if another process works on
    it, or if its payment has no transaction yet: a refund made elsewhere may be reported before its payment's money.

    The payment is locked: a dispute is either seen here, or comes after a refund that is already being sent. ``place``
    holds the place at the gateway, which is taken before the lease.

    Raises:
        GatewayUnavailable: its gateway is no longer configured, or is silent; the refund is not leased (503).
    """
    lock_payment(session, session.scalars(select(Refund.payment_id).where(Refund.id == refund_id)).one())
    refund = session.get_one(Refund, refund_id, options=[joinedload(Refund.payment)])
    if not refund.is_open or refund.leased_until > now or refund.payment.transaction_id is None:
        return None
    place.enter_context(find_gateway(refund.gateway).place())
    refund.lease(until)
    session.flush()
    others = (Refund.payment_id == refund.payment_id, Refund.id != refund_id, Refund.reference.is_not(None))
    references = session.scalars(select(Refund.reference).where(*others))
    return PendingRefund.of(refund, frozenset(filter(None, references)))


@read_transaction
def find_open(session: Session, *, after_id: int, now: datetime, size: int) -> Sequence[int]:
    """Ids of open refunds without a current lease, in ascending order."""
    query = select(Refund.id).where(Refund.status.in_(OPEN), Refund.leased_until <= now, Refund.id > after_id)
    return session.scalars(query.order_by(Refund.id).limit(size)).all()


@read_transaction
def find_without_note(session: Session, *, after_id: int, size: int) -> Sequence[int]:
    """Ids of refunds that have earned a credit note and have none, in ascending order."""
    query = select(Refund.id).join(Invoice, Invoice.payment_id == Refund.payment_id)
    earned = (
        Refund.status == RefundStatus.SUCCEEDED,
        Refund.unallocated_minor == 0,
        ~(Refund.made_elsewhere & Refund.reference.is_(None)),
        Invoice.paid_at.is_not(None),
    )
    query = query.where(*earned, Refund.credit_note_id.is_(None), Refund.id > after_id)
    return session.scalars(query.order_by(Refund.id).limit(size)).all()


@write_transaction
def issue_credit_note(session: Session, refund_id: int, *, at: datetime) -> None:
    """Give the refund its credit note, if it has earned one and has none."""
    payment_id = session.scalars(select(Refund.payment_id).where(Refund.id == refund_id)).one()
    payment = get_for_update(session, payment_id)
    issue_or_void(next(refund for refund in payment.refunds if refund.id == refund_id), payment, at)


@read_transaction
def count_open(session: Session, *, now: datetime) -> int:
    """The number of open refunds without a current lease."""
    query = select(func.count()).select_from(Refund).where(Refund.status.in_(OPEN), Refund.leased_until <= now)
    return session.scalars(query).one()


@read_transaction
def list_newest(
    session: Session, *, status: str | None, payment_id: int | None, before_id: int | None, size: int
) -> Sequence[Refund]:
    """At most ``size`` refunds, newest first, with ids below ``before_id``."""
    query = select(Refund)
    if status is not None:
        query = query.where(Refund.status == status)
    if payment_id is not None:
        query = query.where(Refund.payment_id == payment_id)
    if before_id is not None:
        query = query.where(Refund.id < before_id)
    return session.scalars(query.order_by(Refund.id.desc()).limit(size)).all()


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
