"""PayMongo's objects, as its API answers with them, as plain values of ours.

https://docs.paymongo.com/reference: an object is ``{"id", "type", "attributes": {...}}``, amounts are whole centavos.
Several of its manners are not sure, and some members come only sometimes: docs/paymongo.md lists them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from payments_app.gateways.base import (
    Approved,
    CheckoutSession,
    Declined,
    GatewayPayment,
    GatewayRefund,
    GatewayRefundRequest,
    SessionRequest,
    SessionStatus,
)
from payments_app.gateways.untrusted import Unreadable, amount_of, members_of, of_mode, our_id, text_of

# What an address of theirs is made of; an id of any other shape is never sent.
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_URL = re.compile(r"(https?)://[\x21-\x7e]{1,2000}")

# The reference number of a session and the notes of a refund say once more what the metadata say: those may be missing.
_REFERENCE_NUMBER = re.compile(r"payment ([0-9]+), consultation ([0-9]+), checkout ([0-9]+)")
_NOTES = re.compile(r"Refund ([0-9]+) of payment ([0-9]+)")

# The one currency that it takes.
CURRENCY = "PHP"

# A payment that was refunded had been paid.
_PAID = frozenset({"paid", "partially_refunded", "refunded"})
_UNPAID = frozenset({"pending", "failed"})
_INTENT_HAS_PAYMENT = frozenset({"processing", "succeeded"})
_REFUND_IS_OPEN = frozenset({"pending", "processing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PayMongoPayment:
    """A payment, also one that failed. ``refunds`` is None if the answer has no list of them."""

    transaction_id: str
    status: str
    money: GatewayPayment
    # Seconds since 1970; None if it was not paid or the answer does not say when.
    paid_at: int | None
    refunds: Sequence[GatewayRefund] | None

    @property
    def is_paid(self) -> bool:
        return self.status in _PAID

    @property
    def is_unpaid(self) -> bool:
        """Whether it certainly has no money. A status that is new to us says neither."""
        return self.status in _UNPAID


def reference_number_of(request: SessionRequest) -> str:
    charge = request.charge
    return f"payment {charge.payment_id}, consultation {charge.consultation_id}, checkout {request.number}"


def notes_of(order: GatewayRefundRequest) -> str:
    return f"Refund {order.refund_id} of payment {order.payment_id}"


def address_of(reference: str) -> str:
    """An id as it can stand in an address.

    Raises:
        Unreadable: no id of PayMongo's.
    """
    if not _ID.fullmatch(reference):
        raise Unreadable
    return reference


class Reader:
    """Reads objects of our key's mode; ``livemode`` is None if that is unknown.

    ``schemes``: how an address may begin to which patients are sent. Its methods raise what ``UNEXPECTED`` lists if an
    object is not as documented, and ``OtherMode`` if it is of the other mode.
    """

    def __init__(self, livemode: bool | None, *, schemes: frozenset[str]) -> None:
        self._livemode = livemode
        self._schemes = schemes

    def object_of(self, members: Mapping[str, Any]) -> Mapping[str, Any]:
        """The object that an answer is about."""
        return self._judged(members["data"])

    def page_of(self, members: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The objects of a page of a list."""
        data = members["data"]
        if not isinstance(data, list):
            raise Unreadable
        return [self._judged(thing) for thing in data]

    def session_of(self, thing: Mapping[str, Any]) -> CheckoutSession:
        """A Checkout Session. What became of it is said by its payments; its own ``status`` only that it has ended."""
        attributes = thing["attributes"]
        payments = [self.payment_of(each) for each in _payments_of(attributes)]
        paid = next((payment for payment in payments if payment.is_paid), None)
        status = SessionStatus.SUCCEEDED if paid else _status_unpaid(attributes, payments)
        ids = _ids_of_session(attributes)
        # A patient who went away while the wallet was at work may go on there.
        is_going_on = status in (SessionStatus.OPEN, SessionStatus.PROCESSING)
        return CheckoutSession(
            reference=text_of(thing["id"]),
            status=status,
            money=_named(paid.money, ids) if paid else _asked_by(attributes, ids),
            redirect_url=self._url_of(attributes.get("checkout_url")) if is_going_on else None,
        )

    def payment_of(self, thing: Mapping[str, Any]) -> PayMongoPayment:
        """A Payment: of a session, or by itself."""
        attributes = self._judged(thing)["attributes"]
        paid_at, refunds = attributes.get("paid_at"), attributes.get("refunds")
        return PayMongoPayment(
            transaction_id=text_of(thing["id"]),
            status=text_of(attributes["status"]),
            money=GatewayPayment(
                transaction_id=text_of(thing["id"]),
                amount_minor=amount_of(attributes["amount"], least=0),
                currency=text_of(attributes["currency"]).upper(),
                payment_id=_id_in(attributes, "payment_id"),
                consultation_id=_id_in(attributes, "consultation_id"),
            ),
            paid_at=None if paid_at is None else amount_of(paid_at, least=0),
            refunds=[self.refund_of(each) for each in refunds] if isinstance(refunds, list) else None,
        )

    def refund_of(self, thing: Mapping[str, Any]) -> GatewayRefund:
        """A Refund. One whose status is none that is documented is not believed either way."""
        reference, attributes = text_of(thing["id"]), self._judged(thing)["attributes"]
        status = attributes["status"]
        if status == "failed":
            outcome: Approved | Declined = Declined("The gateway says: failed.", reference)
        elif status == "succeeded" or status in _REFUND_IS_OPEN:
            outcome = Approved(reference, settled=status == "succeeded")
        else:
            raise Unreadable
        noted = _NOTES.fullmatch(attributes.get("notes") or "")
        by_notes = noted.groups() if noted else (None, None)
        return GatewayRefund(
            reference=reference,
            transaction_id=text_of(attributes["payment_id"]),
            amount_minor=amount_of(attributes["amount"], least=1),
            currency=text_of(attributes["currency"]).upper(),
            refund_id=_id_in(attributes, "refund_id") or our_id(by_notes[0]),
            payment_id=_id_in(attributes, "payment_id") or our_id(by_notes[1]),
            outcome=outcome,
        )

    def _judged(self, thing: Mapping[str, Any]) -> Mapping[str, Any]:
        of_mode({**thing["attributes"], "id": thing.get("id")}, self._livemode)
        return thing

    def _url_of(self, value: Any) -> str:
        """Where patients are sent: without it nobody can pay by the session."""
        matched = _URL.fullmatch(value)
        if matched is None or matched[1] not in self._schemes:
            raise Unreadable
        return matched[0]


def _payments_of(attributes: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The payments of a session: its own list, or else its intent's.

    Raises:
        Unreadable: it shows none and says that there is one, or that it has ended without saying how.
    """
    intent = members_of(members_of(attributes.get("payment_intent")).get("attributes"))
    listed: Sequence[Mapping[str, Any]] | None = attributes.get("payments") or intent.get("payments")
    has_ended_somehow = attributes.get("status") == "expired" and attributes.get("payments") is None
    if not listed and (has_ended_somehow or intent.get("status") in _INTENT_HAS_PAYMENT):
        raise Unreadable
    return listed or ()


def _status_unpaid(attributes: Mapping[str, Any], payments: Sequence[PayMongoPayment]) -> SessionStatus:
    if any(payment.status == "pending" for payment in payments):
        return SessionStatus.PROCESSING
    return SessionStatus.EXPIRED if attributes.get("status") == "expired" else SessionStatus.OPEN


def _asked_by(attributes: Mapping[str, Any], ids: tuple[int | None, int | None]) -> GatewayPayment:
    """What a session asks for; a session that does not say so asks for nothing."""
    items = [members_of(item) for item in attributes.get("line_items") or ()]
    asked = sum(amount_of(item["amount"], least=0) * amount_of(item.get("quantity", 1), least=1) for item in items)
    currency = text_of(items[0]["currency"]).upper() if items else CURRENCY
    return GatewayPayment(
        transaction_id=None, amount_minor=asked, currency=currency, payment_id=ids[0], consultation_id=ids[1]
    )


def _named(money: GatewayPayment, ids: tuple[int | None, int | None]) -> GatewayPayment:
    """Money of a session; a payment without metadata is for what its session is for."""
    if (money.payment_id, money.consultation_id) != (None, None):
        return money
    return replace(money, payment_id=ids[0], consultation_id=ids[1])


def _ids_of_session(attributes: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Our payment and our consultation, by its metadata or else by its reference number."""
    ids = _id_in(attributes, "payment_id"), _id_in(attributes, "consultation_id")
    if ids != (None, None):
        return ids
    numbered = _REFERENCE_NUMBER.fullmatch(attributes.get("reference_number") or "")
    return (our_id(numbered[1]), our_id(numbered[2])) if numbered else (None, None)


def _id_in(attributes: Mapping[str, Any], name: str) -> int | None:
    return our_id(members_of(attributes.get("metadata")).get(name))
