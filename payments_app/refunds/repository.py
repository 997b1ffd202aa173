"""Refunds in the database. Each public function is one transaction."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, contains_eager, joinedload

from payments_app import clock, money
from payments_app.db.base import constant
from payments_app.db.transaction import FirstAttempt, read_transaction, write_transaction
from payments_app.errors import (
    NotRefundable,
    RefundableChanged,
    RefundExceedsBalance,
    RefundNotFound,
    RefundRepeated,
)
from payments_app.gateways.base import Approved, Declined, GatewayRefundRequest, OutcomeUnknown
from payments_app.gateways.capabilities import Capabilities, Refundable
from payments_app.gateways.registry import find_gateway
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import StoredResponse
from payments_app.invoices.models import Invoice
from payments_app.pagination import Page
from payments_app.payments.models.credit_note import issue_or_void
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import SENT, Refund, RefundStatus
from payments_app.payments.repository import (
    ChangeCommand,
    continue_from,
    get_for_update,
    lock_payment,
    read_for_update,
)

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
    # Since when the gateway may know its key.
    first_sent_at: datetime
    # False while the payment is disputed: the refund may be looked up, and is not sent.
    may_be_sent: bool
    # The payment as it was committed with the refund.
    payment: FirstAttempt[Payment]

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
        return cls(
            refund.gateway,
            request,
            refund.first_sent_at,
            may_be_sent=not payment.is_disputed,
            payment=FirstAttempt(payment),
        )


@dataclass(frozen=True, slots=True)
class RefundTerms:
    """The clinic's settings for refunds.

    ``lease_seconds``: for so long a refund belongs to the process that sends it. ``approval_above_minor``: if more than
    this amount, in minor units, is returned of one payment, a second person has to approve it; None: never.
    """

    lease_seconds: int
    approval_above_minor: int | None = None

    def need_approval(self, payment: Payment, amount_minor: int) -> bool:
        """Whether this refund, with those before it, needs a second person."""
        returned_minor = payment.refunded_minor + payment.refund_reserved_minor + amount_minor
        return self.approval_above_minor is not None and returned_minor > self.approval_above_minor


@write_transaction
def reserve(
    session: Session,
    change: ChangeCommand,
    refund_request: RefundRequest,
    *,
    terms: RefundTerms,
    render: Render,
    place: ExitStack,
) -> StoredResponse | tuple[PendingRefund, StoredResponse]:
    """Reserve the money before the gateway is called: if the process dies during the call, resume finds the row.

    Returns the refund and the response that is valid until its outcome is written; or only the response, if it was
    stored for the key, or if people have to act before anything is sent: staff by hand, or a second person.
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
    payment, key = read_for_update(session, change, with_notes=True)
    stored = idempotency.response_of(key, change.request)
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
    needs_approval = terms.need_approval(payment, amount_minor)
    by_hand = not gateway.capabilities.can_be_asked
    is_sent_now = not (by_hand or needs_approval)
    if is_sent_now:
        # Waits for nothing, and before the first write: without a place, this transaction is rolled back empty.
        place.enter_context(gateway.place())
    refund = Refund.order(
        payment,
        amount_minor=amount_minor,
        reason=refund_request.reason,
        requested_by=change.caller.user_id,
        by_hand=by_hand,
        needs_approval=needs_approval,
        # From now, not from the start of the request, which may have waited for a lock.
        leased_until=clock.now() + timedelta(seconds=terms.lease_seconds),
        context=change.context,
    )
    session.flush()  # the one flush of this effect; it also assigns the refund's id
    response = render(payment, refund)
    idempotency.store(
        session, change.request, response, payment_id=payment.id, refund_id=refund.id, at=change.context.at
    )
    return (PendingRefund.of(refund), response) if is_sent_now else response


def _require_refundable(capabilities: Capabilities, payment: Payment, amount_minor: int) -> None:
    match capabilities.refundable(payment.payment_method):
        case Refundable.NOT:
            raise NotRefundable
        case Refundable.WHOLE if amount_minor != payment.received_minor:
            raise NotRefundable.in_parts()


@write_transaction
def settle(
    session: Session,
    refund_id: int,
    outcome: Outcome,
    *,
    change: ChangeCommand,
    render: Render,
    reserved: FirstAttempt[Payment],
) -> StoredResponse:
    """Write the gateway's outcome, and store the final response under the key.

    ``reserved``: the payment as it was committed with the refund, before the gateway was called.
    """
    payment, refund = _settled(session, refund_id, outcome, change.context, reserved=reserved)
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
_NOT_SENT = Declined("Staff did not send the money.")


@write_transaction
def give_up_by_hand(session: Session, refund_id: int, *, context: AuditContext) -> Refund | None:
    """Mark a refund by hand failed whose money was not sent. None if there is no money to send for it."""
    _, refund = _load_for_update(session, refund_id)
    if not refund.is_to_be_sent:
        return None
    refund.settle(_NOT_SENT, replace(context, at=clock.now()))
    session.flush()
    return refund


@write_transaction
def settle_by_hand(
    session: Session, refund_id: int, reference: str, *, change: ChangeCommand, render: Render
) -> StoredResponse:
    """Staff have sent the money of a refund by hand: the same transfer again is a retry.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user is no longer an admin (403).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        PaymentDisputed: the patient's bank took the money back, or may do so (409).
        RefundNotToBeSent: it is not by hand, or waits for approval, or has failed (409).
        RefundAlreadySent: the money was sent by another transfer (409).
        TransferAlreadyUsed: the transfer returned the money of another refund (409).
    """
    payment, refund, key = _load_for_change(session, refund_id, change)
    stored = idempotency.response_of(key, change.request)
    if stored is not None:
        return stored
    if refund.was_sent_by(reference):
        return render(payment, refund).as_replay()
    change.conditions.require(payment)
    payment.require_undisputed()
    refund.settle_by_hand(reference, replace(change.context, at=clock.now()))
    return _flush_and_store(session, payment, refund, change, render)


@write_transaction
def approve(
    session: Session, refund_id: int, *, change: ChangeCommand, lease_seconds: int, render: Render, place: ExitStack
) -> StoredResponse | tuple[PendingRefund, StoredResponse]:
    """Another admin approves a refund: the refund to send, and its response until then; or only the response, if it was
    stored for the key, or if staff send the money.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user is no longer an admin (403).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        PaymentDisputed: the patient's bank took the money back, or may do so (409).
        SecondPersonNeeded: the same user requested it (403).
        RefundNotRequested: it does not wait for approval (409).
        RefundRequestLapsed: it has waited too long (409).
        GatewayUnavailable: the payment's gateway is no longer configured, or is silent (503).
        GatewayBusy: no place at the gateway (503).
    """
    payment, refund, key = _load_for_change(session, refund_id, change)
    stored = idempotency.response_of(key, change.request)
    if stored is not None:
        return stored
    change.conditions.require(payment)
    refund.require_requested(decided_by=change.caller.user_id)
    payment.require_undisputed()
    if not refund.by_hand:
        place.enter_context(find_gateway(refund.gateway).place())  # before the first write, as in reserve
    now = clock.now()
    refund.approve(
        approved_by=change.caller.user_id,
        leased_until=now + timedelta(seconds=lease_seconds),
        context=replace(change.context, at=now),
    )
    response = _flush_and_store(session, payment, refund, change, render)
    return response if refund.by_hand else (PendingRefund.of(refund), response)


@write_transaction
def reject(session: Session, refund_id: int, reason: str, *, change: ChangeCommand, render: Render) -> StoredResponse:
    """Another admin rejects a refund: it fails, and its money is free again.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user is no longer an admin (403).
        IdempotencyKeyReused: the key was used for another request (422).
        PreconditionFailed, VersionConflict: not the version that the caller knows (412, 409).
        SecondPersonNeeded: the same user requested it (403).
        RefundNotRequested: it does not wait for approval (409).
    """
    payment, refund, key = _load_for_change(session, refund_id, change)
    stored = idempotency.response_of(key, change.request)
    if stored is not None:
        return stored
    change.conditions.require(payment)
    refund.require_requested(decided_by=change.caller.user_id)
    refund.reject(f"Rejected: {reason}", replace(change.context, at=clock.now()))
    return _flush_and_store(session, payment, refund, change, render)


def _has_status(status: RefundStatus) -> ColumnElement[bool]:
    """The predicate of ``ix_refunds_for_people``."""
    return Refund.status == constant(status)


def _load_for_change(
    session: Session, refund_id: int, change: ChangeCommand
) -> tuple[Payment, Refund, IdempotencyKey | None]:
    payment, key = read_for_update(session, change, with_notes=True)
    return payment, _find(payment, refund_id), key


def _flush_and_store(
    session: Session, payment: Payment, refund: Refund, change: ChangeCommand, render: Render
) -> StoredResponse:
    session.flush()  # the one flush of this effect
    response = render(payment, refund)
    idempotency.store(
        session, change.request, response, payment_id=payment.id, refund_id=refund.id, at=change.context.at
    )
    return response


def _settled(
    session: Session,
    refund_id: int,
    outcome: Outcome,
    context: AuditContext,
    *,
    only_if_lost: bool = False,
    reserved: FirstAttempt[Payment] | None = None,
) -> tuple[Payment, Refund]:
    """The payment and the refund. Both are returned, because the session holds the payment only weakly."""
    # Locked whatever the strategy, as if it were loaded now.
    payment = None if reserved is None else continue_from(session, reserved, None, locked=True)
    payment, refund = _load_for_update(session, refund_id) if payment is None else (payment, _find(payment, refund_id))
    if not only_if_lost or (refund.is_at_gateway and refund.reference is None):
        refund.settle(outcome, replace(context, at=clock.now()))
    session.flush()  # the one flush of this effect
    return payment, refund


def _load_for_update(session: Session, refund_id: int) -> tuple[Payment, Refund]:
    payment_id = session.scalars(select(Refund.payment_id).where(Refund.id == refund_id)).one()
    payment = get_for_update(session, payment_id)  # locked: only one process at a time changes a refund
    return payment, _find(payment, refund_id)


def _find(payment: Payment, refund_id: int) -> Refund:
    return next(refund for refund in payment.refunds if refund.id == refund_id)


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
    if not refund.is_at_gateway or refund.leased_until > now or refund.payment.transaction_id is None:
        return None
    place.enter_context(find_gateway(refund.gateway).place())
    refund.lease(until)
    session.flush()
    others = (Refund.payment_id == refund.payment_id, Refund.id != refund_id, Refund.reference.is_not(None))
    references = session.scalars(select(Refund.reference).where(*others))
    return PendingRefund.of(refund, frozenset(filter(None, references)))


@read_transaction
def find_open(session: Session, *, after_id: int, now: datetime, size: int) -> Sequence[int]:
    """Ids of refunds that their gateway may have, without a current lease, in ascending order."""
    query = select(Refund.id).where(Refund.status.in_(SENT), Refund.leased_until <= now, Refund.id > after_id)
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
    issue_or_void(_find(payment, refund_id), payment, at)


@read_transaction
def count_open(session: Session, *, now: datetime) -> int:
    """The number of refunds that their gateway may have, without a current lease."""
    query = select(func.count()).select_from(Refund).where(Refund.status.in_(SENT), Refund.leased_until <= now)
    return session.scalars(query).one()


@dataclass(frozen=True, slots=True)
class ForPeople:
    """Refunds on which people have to act: how many, and when the oldest was requested (None if there are none)."""

    count: int
    oldest_at: datetime | None


@read_transaction
def count_for_people(session: Session) -> tuple[ForPeople, ForPeople]:
    """Refunds that wait for approval, and refunds by hand whose money is to be sent."""
    columns = (func.count(), func.min(Refund.created_at))
    requested = session.execute(select(*columns).where(_has_status(RefundStatus.REQUESTED))).one()
    to_be_sent = session.execute(select(*columns).where(Refund.by_hand, _has_status(RefundStatus.PENDING))).one()
    return ForPeople(*requested), ForPeople(*to_be_sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFilter:
    """Conditions, all of which a refund fulfils; the page begins after the refund with the id ``before_id``.

    ``created_from`` and ``created_to``: from the first moment that is shown to the first one that is not.
    """

    status: str | None = None
    payment_id: int | None = None
    payment_method: str | None = None
    gateway: str | None = None
    by_hand: bool | None = None
    requested_by: int | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    before_id: int | None = None
    per_page: int

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        wanted = {
            Refund.payment_id: self.payment_id,
            Refund.gateway: self.gateway,
            Refund.by_hand: self.by_hand,
            Refund.requested_by: self.requested_by,
            Payment.payment_method: self.payment_method,
        }
        yield from (column == value for column, value in wanted.items() if value is not None)
        if self.status is not None:
            yield _has_status(RefundStatus(self.status))
        if self.created_from is not None:
            yield Refund.created_at >= self.created_from
        if self.created_to is not None:
            yield Refund.created_at < self.created_to
        if self.before_id is not None:
            yield Refund.id < self.before_id


@read_transaction
def list_page(session: Session, shown: RefundFilter) -> Page[Refund]:
    """Refunds with their payments, newest first."""
    query = select(Refund).join(Refund.payment).options(contains_eager(Refund.payment)).where(*shown.conditions())
    found = session.scalars(query.order_by(Refund.id.desc()).limit(shown.per_page + 1)).all()
    return Page.cut(found, shown.per_page)


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
