"""Compares a gateway's books with ours: payments and refunds, amounts, currencies and statuses.

The gateway's list says what was there in a time, ours what was here; the two clocks differ, and money that is paid
before midnight may be completed here after it. So neither list decides: what stands in one and not in the other, or
differs, is looked up by its reference at both sides again, whenever it was.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import NamedTuple, TypeVar

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from payments_app import money
from payments_app.db.transaction import read_transaction
from payments_app.gateways.base import Approved, GatewayRefund, ListedPayment, PaymentLists
from payments_app.payments.models.event import UNCOUNTED_MONEY, PaymentEvent
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund, RefundStatus

T = TypeVar("T")

# Objects per query.
BATCH_SIZE = 200


class Kind(StrEnum):
    """How the gateway's books differ from ours."""

    THERE_NOT_HERE = "there_not_here"
    HERE_NOT_THERE = "here_not_there"
    AMOUNT = "amount"
    CURRENCY = "currency"
    STATUS = "status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One payment or refund that differs. ``subject``: ``payment`` or ``refund``; ``reference``: the gateway's id.

    ``payment_id``: our payment that it is about, if there is one.
    """

    gateway: str
    kind: Kind
    subject: str
    reference: str
    payment_id: int | None
    detail: str


class _Payment(NamedTuple):
    id: int
    reference: str
    status: str
    amount_minor: int
    currency: str


class _Refund(NamedTuple):
    id: int
    reference: str | None
    status: str
    amount_minor: int
    currency: str
    payment_id: int


class Reconciliation:
    """One gateway's books beside ours, from ``since`` to before ``until``.

    Holds the references of that time, not the objects. ``tick`` is called with each number of objects that were
    compared.
    """

    def __init__(
        self, gateway: str, lists: PaymentLists, since: datetime, until: datetime, tick: Callable[[int], None]
    ) -> None:
        self._gateway, self._lists, self._since, self._until, self._tick = gateway, lists, since, until, tick

    def differences(self) -> list[Difference]:
        """Every payment and refund that differs, once.

        Raises:
            GatewayUnavailable: the gateway did not answer, or cannot be read: nothing is known of the rest (503).
        """
        payments = map(self._judge_payment, self._suspicious_payments())
        refunds = map(self._judge_refund, self._suspicious_refunds())
        return [difference for each in (payments, refunds) for difference in each if difference is not None]

    # What has to be looked at again

    def _suspicious_payments(self) -> list[str]:
        listed: set[str] = set()
        suspects: list[str] = []
        for batch in _batches(self._lists.list_payments(self._since, self._until)):
            paid = [there for there in batch if there.is_paid]
            here = _find_payments(self._gateway, [there.reference for there in paid])
            suspects += [there.reference for there in paid if self._compare(there, here.get(there.reference))]
            listed.update(there.reference for there in paid)
            self._tick(len(batch))
        ours = _all_references(lambda after: _payments_between(self._gateway, self._since, self._until, after))
        return suspects + [reference for reference in ours if reference not in listed]

    def _suspicious_refunds(self) -> list[str]:
        listed: set[str] = set()
        suspects: list[str] = []
        for batch in _batches(self._lists.list_refunds(self._since, self._until)):
            here = _find_refunds(self._gateway, [there.reference for there in batch])
            suspects += [
                there.reference for there in batch if self._compare_refund(there, here.get(there.reference)) is not None
            ]
            listed.update(there.reference for there in batch)
            self._tick(len(batch))
        ours = _all_references(lambda after: _refunds_between(self._gateway, self._since, self._until, after))
        return suspects + [reference for reference in ours if reference not in listed]

    # What is so now, at both sides

    def _judge_payment(self, reference: str) -> Difference | None:
        there = self._lists.find_listed_payment(reference)
        here = _find_payments(self._gateway, [reference]).get(reference)
        if here is None and (there is None or _is_known_otherwise(reference)):
            return None
        difference = self._compare(there, here)
        if difference is None or there is None or here is not None or there.money.payment_id is None:
            return difference
        return self._named(difference, there.money.payment_id)

    def _named(self, difference: Difference, payment_id: int) -> Difference:
        """Money for a payment of ours: one that has no money has the wrong status, another one was paid twice."""
        found = _state_of(self._gateway, payment_id)
        if found is None:
            return difference
        status, received_minor = found
        return replace(
            difference,
            kind=difference.kind if received_minor else Kind.STATUS,
            payment_id=payment_id,
            detail=f"{difference.detail}, here payment {payment_id} is {status} without this money",
        )

    def _judge_refund(self, reference: str) -> Difference | None:
        there = self._lists.find_listed_refund(reference)
        here = _find_refunds(self._gateway, [reference]).get(reference)
        if there is not None and here is None:
            if there.transaction_id is not None and (
                _is_known_otherwise(there.transaction_id)
                or _is_in_total(self._gateway, there.transaction_id, there.amount_minor)
            ):
                return None
            if there.refund_id is not None:  # its response was lost, or staff gave it up
                here = _find_unnamed(self._gateway, there.refund_id)
        return self._compare_refund(there, here)

    # Comparisons

    def _compare(self, there: ListedPayment | None, here: _Payment | None) -> Difference | None:
        """None if they agree, or if the gateway's status is one that is new to us."""
        if here is None:
            if there is None or not there.is_paid:
                return None
            paid = f"paid there: {_amount(there.money.amount_minor, there.money.currency)}"
            return self._difference(Kind.THERE_NOT_HERE, "payment", there.reference, None, paid)
        kept = f"here {here.status}: {_amount(here.amount_minor, here.currency)}"
        if there is None:
            return self._difference(Kind.HERE_NOT_THERE, "payment", here.reference, here.id, kept)
        if there.is_paid is None:
            return None
        told = f"there {_amount(there.money.amount_minor, there.money.currency)}"
        if not there.is_paid:
            return self._difference(Kind.STATUS, "payment", here.reference, here.id, f"not paid there, {kept}")
        kind = _money_differs(there.money.amount_minor, there.money.currency, here)
        return None if kind is None else self._difference(kind, "payment", here.reference, here.id, f"{told}, {kept}")

    def _compare_refund(self, there: GatewayRefund | None, here: _Refund | None) -> Difference | None:
        """None if they agree. A refund that failed moved no money: that one side does not know it is no difference."""
        if there is None:
            if here is None or here.status == RefundStatus.FAILED:
                return None
            kept = f"refund {here.id}, here {here.status}: {_amount(here.amount_minor, here.currency)}"
            return self._difference(Kind.HERE_NOT_THERE, "refund", str(here.reference), here.payment_id, kept)
        status = _status_there(there)
        told = f"there {status}: {_amount(there.amount_minor, there.currency)}"
        if here is None:
            if status == RefundStatus.FAILED:
                return None
            return self._difference(Kind.THERE_NOT_HERE, "refund", there.reference, there.payment_id, told)
        kind = _money_differs(there.amount_minor, there.currency, here)
        if kind is None and status != here.status:
            kind = Kind.STATUS
        if kind is None:
            return None
        kept = f"refund {here.id}, here {here.status}: {_amount(here.amount_minor, here.currency)}"
        return self._difference(kind, "refund", there.reference, here.payment_id, f"{told}, {kept}")

    def _difference(self, kind: Kind, subject: str, reference: str, payment_id: int | None, detail: str) -> Difference:
        return Difference(
            gateway=self._gateway,
            kind=kind,
            subject=subject,
            reference=reference,
            payment_id=payment_id,
            detail=detail,
        )


def _money_differs(amount_minor: int, currency: str, here: _Payment | _Refund) -> Kind | None:
    if currency != here.currency:
        return Kind.CURRENCY
    return None if amount_minor == here.amount_minor else Kind.AMOUNT


def _status_there(refund: GatewayRefund) -> RefundStatus:
    if not isinstance(refund.outcome, Approved):
        return RefundStatus.FAILED
    return RefundStatus.SUCCEEDED if refund.outcome.settled else RefundStatus.PENDING


def _amount(amount_minor: int, currency: str) -> str:
    return f"{money.to_text(amount_minor)} {currency}"


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH_SIZE)):
        yield batch


def _all_references(page_after: Callable[[int], Sequence[tuple[int, str]]]) -> Iterator[str]:
    last_id = 0
    while page := page_after(last_id):
        yield from (reference for _, reference in page)
        last_id = page[-1][0]


# Our books. Each is one statement, and none is open while the gateway is asked.

_OF_PAYMENT = (Payment.id, Payment.transaction_id, Payment.status, Payment.received_minor, Payment.currency)
_OF_REFUND = (Refund.id, Refund.reference, Refund.status, Refund.amount_minor, Refund.currency, Refund.payment_id)


@read_transaction
def _find_payments(session: Session, gateway: str, references: Sequence[str]) -> dict[str, _Payment]:
    found = select(*_OF_PAYMENT).where(Payment.gateway == gateway, Payment.transaction_id.in_(references))
    return {row.reference: row for row in map(_Payment._make, session.execute(found))}


@read_transaction
def _find_refunds(session: Session, gateway: str, references: Sequence[str]) -> dict[str | None, _Refund]:
    found = select(*_OF_REFUND).where(Refund.gateway == gateway, Refund.reference.in_(references))
    return {row.reference: row for row in map(_Refund._make, session.execute(found))}


@read_transaction
def _find_unnamed(session: Session, gateway: str, refund_id: int) -> _Refund | None:
    """A refund of ours whose gateway id was never learned."""
    found = select(*_OF_REFUND).where(Refund.id == refund_id, Refund.gateway == gateway, Refund.reference.is_(None))
    row = session.execute(found).one_or_none()
    return None if row is None else _Refund._make(row)


@read_transaction
def _payments_between(
    session: Session, gateway: str, since: datetime, until: datetime, after_id: int
) -> Sequence[tuple[int, str]]:
    """Payments with money that came in that time; money in quarantine by the last change, which is not before it."""
    in_time = or_(
        (Payment.completed_at >= since) & (Payment.completed_at < until),
        Payment.completed_at.is_(None) & (Payment.updated_at >= since) & (Payment.updated_at < until),
    )
    wanted = select(Payment.id, Payment.transaction_id).where(
        Payment.gateway == gateway, Payment.received_minor > 0, in_time, Payment.id > after_id
    )
    rows = session.execute(wanted.order_by(Payment.id).limit(BATCH_SIZE))
    return [(payment_id, reference) for payment_id, reference in rows if reference is not None]


@read_transaction
def _refunds_between(
    session: Session, gateway: str, since: datetime, until: datetime, after_id: int
) -> Sequence[tuple[int, str]]:
    """Refunds of that time that the gateway has given an id; of the others `payments resume` finds out."""
    wanted = select(Refund.id, Refund.reference).where(
        Refund.gateway == gateway,
        Refund.reference.is_not(None),
        Refund.created_at >= since,
        Refund.created_at < until,
        Refund.id > after_id,
    )
    rows = session.execute(wanted.order_by(Refund.id).limit(BATCH_SIZE))
    return [(refund_id, reference) for refund_id, reference in rows if reference is not None]


@read_transaction
def _is_known_otherwise(session: Session, reference: str) -> bool:
    """Whether it is money that no amount of ours counts and that a review names: paid twice, or in another currency."""
    # No index has the reference: few references are looked for here.
    known = select(PaymentEvent.id).where(PaymentEvent.event.in_(UNCOUNTED_MONEY), PaymentEvent.reference == reference)
    return session.scalar(known.limit(1)) is not None


@read_transaction
def _is_in_total(session: Session, gateway: str, transaction_id: str, amount_minor: int) -> bool:
    """Whether it may be part of a total that the gateway reported without naming the refunds."""
    total = (
        select(Refund.id)
        .join(Payment, Payment.id == Refund.payment_id)
        .where(Payment.gateway == gateway, Payment.transaction_id == transaction_id, Refund.made_elsewhere)
        .where(Refund.reference.is_(None), Refund.status != RefundStatus.FAILED, Refund.amount_minor >= amount_minor)
    )
    return session.scalar(total.limit(1)) is not None


@read_transaction
def _state_of(session: Session, gateway: str, payment_id: int) -> tuple[str, int] | None:
    """Status and received money, in minor units."""
    wanted = select(Payment.status, Payment.received_minor)
    row = session.execute(wanted.where(Payment.id == payment_id, Payment.gateway == gateway)).one_or_none()
    return None if row is None else (row.status, row.received_minor)
