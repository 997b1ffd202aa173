"""GCash, e-wallets, cards and QR Ph by PayMongo, through its hosted checkout (Philippines, PHP only).

PayMongo is sent a gateway key made of our own row's id (``Idempotency-Key``) with each call that has an effect, and is
not relied upon to remember it: its own pages say that it does for 24 hours, others deny it.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

from config import MINOR_DIGITS
from payments_app.errors import GatewayUnavailable
from payments_app.gateways.admission import Admission
from payments_app.gateways.base import (
    Approved,
    Charge,
    CheckoutSession,
    Declined,
    GatewayPayment,
    GatewayRefund,
    GatewayRefundRequest,
    ListedPayment,
    OutcomeUnknown,
    Reachable,
    SessionRequest,
    SessionStatus,
)
from payments_app.gateways.capabilities import Capabilities, CheckoutKind, Refundable
from payments_app.gateways.events import GatewayEvent, OtherMode
from payments_app.gateways.paymongo.api import PayMongoApi
from payments_app.gateways.paymongo.objects import CURRENCY, PayMongoPayment, Reader
from payments_app.gateways.paymongo.transport import NoAnswer, Refused, Transport
from payments_app.gateways.paymongo.webhooks import EventReader
from payments_app.gateways.untrusted import UNEXPECTED, Unreadable, livemode_of
from payments_app.i18n.messages import N_

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# What PayMongo calls the ways to pay that each of our methods stands for, and how their money is returned.
_TYPES: Mapping[str, Sequence[str]] = {
    "gcash": ("gcash",),
    "e_wallet": ("paymaya", "grab_pay"),
    "stripe": ("card",),
    "bank_transfer": ("qrph",),
}
_REFUNDABLE = {**dict.fromkeys(_TYPES, Refundable.IN_PARTS), "bank_transfer": Refundable.NOT}

# At most so many pages of refunds are read, so that a search ends before the lease of a refund does.
_MOST_PAGES = 10

_PAYMENT = re.compile(r"pay_[A-Za-z0-9_-]{1,100}")
# No payment has this id: asking for it costs nothing, and shows nobody's payment.
_NO_PAYMENT = "pay_000000000000000000000000"

# What an object of the other mode says of a transaction that somebody named, and of all that is ours.
_PAYS_NOTHING = Declined(N_("It is not of the mode of this service's key, test or live."))
_NOT_BELIEVED = OutcomeUnknown("an object of the other mode, test or live, than our key's")


class PayMongoGateway:
    """``timeout_seconds`` is for one call. Nothing is sent again by itself."""

    capabilities = Capabilities(
        methods=_REFUNDABLE,
        currencies=frozenset({CURRENCY}),
        checkout=CheckoutKind.REDIRECT,
        remembers_keys_seconds=None,
        # A session cannot be given an end, and PayMongo names none.
        session_seconds=None,
        ends_sessions=True,
        can_be_asked=True,
    )

    def __init__(
        self,
        api_key: str,
        *,
        api_base: str,
        timeout_seconds: int,
        lease_seconds: int,
        admission: Admission,
        webhook_secrets: Sequence[str] = (),
    ) -> None:
        self._admission = admission
        self.livemode = livemode_of(api_key)
        self.has_webhook_secret = bool(webhook_secrets)
        # Over plain HTTP only in tests: then the look-alike's page is there too.
        schemes = frozenset({"https", urlsplit(api_base).scheme})
        self._api = PayMongoApi(
            Transport(api_key, api_base=api_base, timeout_seconds=timeout_seconds, admission=admission),
            Reader(self.livemode, schemes=schemes),
            # Besides the payment, and a refund that has to be read by itself.
            pages=max(1, min(_MOST_PAGES, (lease_seconds - 1) // timeout_seconds - 2)),
        )
        self._events = EventReader(self._api, webhook_secrets, livemode=self.livemode, place=self.place)

    def place(self) -> AbstractContextManager[None]:
        return self._admission.place()

    def minor_digits(self, _currency: str) -> int:
        return MINOR_DIGITS  # it takes one currency, and counts it in centavos

    def open_session(self, request: SessionRequest) -> CheckoutSession | Declined | OutcomeUnknown:
        types = _TYPES.get(request.charge.payment_method)
        if types is None or request.charge.currency != CURRENCY:
            # A payment from when the settings had another gateway or currency.
            return Declined(N_("PayMongo does not carry payments by this method or in this currency."))
        return _call(lambda: self._opened(request, list(types)))

    def look_up(self, _charge: Charge, transaction_id: str) -> CheckoutSession | Declined | OutcomeUnknown:
        if not _PAYMENT.fullmatch(transaction_id):
            return Declined(N_("It is no payment of PayMongo's: the ids of those begin with pay_."))
        return _call(lambda: _session_of(self._api.get_payment(transaction_id)), of_other_mode=_PAYS_NOTHING)

    def look_up_session(self, _charge: Charge, reference: str) -> CheckoutSession | Declined | OutcomeUnknown:
        return _call(lambda: self._api.get_session(reference))

    def cancel_session(self, _charge: Charge, reference: str) -> CheckoutSession | Declined | OutcomeUnknown:
        ended = _call(lambda: self._ended(reference))
        if not isinstance(ended, CheckoutSession):
            return ended
        if ended.status == SessionStatus.OPEN:
            return OutcomeUnknown("a session that is still open after it was ended")
        return replace(ended, status=SessionStatus.CANCELLED) if ended.status == SessionStatus.EXPIRED else ended

    def refund(self, order: GatewayRefundRequest) -> Approved | Declined | OutcomeUnknown:
        made = _call(lambda: _of_order(order, self._api.create_refund(order)))
        return made.outcome if isinstance(made, GatewayRefund) else made

    def look_up_refund(self, order: GatewayRefundRequest) -> Approved | Declined | OutcomeUnknown | None:
        found = _call(lambda: self._find_refund(order))
        if isinstance(found, Declined):
            # That PayMongo has no such payment is no proof that none of it was returned: another account's key may
            # have been configured since.
            return OutcomeUnknown(found.reason)
        return found.outcome if isinstance(found, GatewayRefund) else found

    def ping(self) -> Reachable | Declined | OutcomeUnknown:
        """Whether PayMongo answers, and knows our key (Declined: it does not), by asking for a payment that is none."""
        try:
            return Reachable(self._api.ping(_NO_PAYMENT))
        except Refused as refusal:
            return Reachable(refusal.at)
        except NoAnswer as error:
            return Declined(error.reason) if error.status in (401, 403) else OutcomeUnknown(error.reason)

    def read_event(
        self, body: bytes, headers: Mapping[str, str], *, received_at: datetime
    ) -> GatewayEvent | OutcomeUnknown:
        return self._events.read(body, headers.get("Paymongo-Signature"), received_at=received_at)

    def look_up_money(self, transaction_id: str) -> GatewayPayment | OutcomeUnknown | None:
        money = _call(lambda: self._money_of(transaction_id), of_other_mode=_PAYS_NOTHING)
        return None if isinstance(money, Declined) else money

    def list_payments(self, since: datetime, until: datetime) -> Iterator[ListedPayment]:
        return map(_listed_payment, _listed(self._api.payments_between, since, until))

    def list_refunds(self, since: datetime, until: datetime) -> Iterator[GatewayRefund]:
        return _listed(self._api.refunds_between, since, until)

    def find_listed_payment(self, reference: str) -> ListedPayment | None:
        found = _found(lambda: self._api.get_payment(reference))
        return None if found is None else _listed_payment(found)

    def find_listed_refund(self, reference: str) -> GatewayRefund | None:
        return _found(lambda: self._api.get_refund(reference))

    def _money_of(self, transaction_id: str) -> GatewayPayment | None:
        try:
            return self._api.get_payment(transaction_id).money
        except UNEXPECTED:
            return None  # nor will it be readable the next time

    def _opened(self, request: SessionRequest, types: list[str]) -> CheckoutSession:
        session = self._api.open_session(request, types)
        if session.money.payment_id not in (None, request.charge.payment_id):
            raise Unreadable
        return session

    def _ended(self, reference: str) -> CheckoutSession:
        """The session after it was ended. What PayMongo answers for one that is paid or has ended is not known."""
        try:
            ended = self._api.expire_session(reference)
        except Refused:
            return self._api.get_session(reference)
        except NoAnswer as error:
            if not error.is_success:
                raise
            return self._api.get_session(reference)
        except UNEXPECTED:
            return self._api.get_session(reference)
        return self._api.get_session(reference) if ended.status == SessionStatus.OPEN else ended

    def _find_refund(self, order: GatewayRefundRequest) -> GatewayRefund | None:
        """The refund by PayMongo's name for it, or by ours in its metadata or its notes.

        Raises:
            NoAnswer: one of the same amount does not say whose it is.
        """
        if order.reference is not None:
            return _of_order(order, self._api.get_refund(order.reference))
        is_unclear = False
        for listed in self._api.refunds_of(self._api.get_payment(order.transaction_id)):
            refund = listed
            if refund.reference in order.other_references:
                continue
            if refund.refund_id is None and refund.amount_minor == order.amount_minor:
                refund = self._api.get_refund(refund.reference)  # which may say more than a list does
                is_unclear = is_unclear or refund.refund_id is None
            if refund.refund_id == order.refund_id:
                return _of_order(order, refund)
        if is_unclear:
            raise NoAnswer("a refund of the same amount does not say whose it is")
        return None


def _listed_payment(payment: PayMongoPayment) -> ListedPayment:
    is_paid = True if payment.is_paid else False if payment.is_unpaid else None
    return ListedPayment(reference=payment.transaction_id, money=payment.money, is_paid=is_paid)


def _listed(list_between: Callable[[int, int], Iterator[Result]], since: datetime, until: datetime) -> Iterator[Result]:
    """Raises:
    GatewayUnavailable: a page was not answered, or cannot be read (503).
    """
    objects = list_between(int(since.timestamp()), int(until.timestamp()))
    end = object()
    while (each := _read(lambda: next(objects, end))) is not end:
        yield each  # type: ignore[misc]  # it is not the end


def _found(call: Callable[[], Result]) -> Result | None:
    """What the call finds; None if PayMongo has no such object.

    Raises:
        GatewayUnavailable: it was not answered, or cannot be read (503).
    """

    def find() -> Result | None:
        try:
            return call()
        except Refused as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    return _read(find)


def _read(call: Callable[[], Result]) -> Result:
    result = _call(call)
    if isinstance(result, Declined | OutcomeUnknown):
        raise GatewayUnavailable(str(result.reason))
    return result


def _session_of(payment: PayMongoPayment) -> CheckoutSession:
    """A payment that was named by itself: as a session, its own id is all that it has."""
    if payment.is_paid:
        status = SessionStatus.SUCCEEDED
    else:
        status = SessionStatus.PROCESSING if payment.status == "pending" else SessionStatus.OPEN
    return CheckoutSession(reference=payment.transaction_id, status=status, money=payment.money)


def _of_order(order: GatewayRefundRequest, refund: GatewayRefund) -> GatewayRefund:
    """The refund itself, if it is the one that was ordered.

    Raises:
        Unreadable: it is another one.
    """
    returned = (refund.transaction_id, refund.amount_minor, refund.currency)
    is_ours = refund.refund_id in (None, order.refund_id) and refund.payment_id in (None, order.payment_id)
    if returned != (order.transaction_id, order.amount_minor, order.currency) or not is_ours:
        raise Unreadable
    return refund


def _call(
    call: Callable[[], Result], *, of_other_mode: Declined | OutcomeUnknown = _NOT_BELIEVED
) -> Result | Declined | OutcomeUnknown:
    """The call's answer, or what its failure says of whether anything happened."""
    try:
        return call()
    except Refused as refusal:
        return Declined(refusal.detail)
    except NoAnswer as error:
        return OutcomeUnknown(error.reason)
    except OtherMode as error:
        log.warning("PayMongo answered with %s: %s", _NOT_BELIEVED.reason, error.reference)
        return of_other_mode
    except UNEXPECTED as error:
        return OutcomeUnknown(f"an answer that cannot be read: {type(error).__name__}")
