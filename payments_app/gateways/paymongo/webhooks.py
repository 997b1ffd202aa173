"""PayMongo's webhook events: whether they are PayMongo's, and what of them concerns us.

``Paymongo-Signature: t=<seconds>,te=<hex>,li=<hex>``: ``te`` signs in test mode, ``li`` in live mode, the other one is
empty. What an event says of money is read again from the gateway before it is believed: its resource may be incomplete,
and its names have changed over time.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

from payments_app.gateways.base import Approved, CheckoutSession, GatewayRefund, OutcomeUnknown, SessionStatus
from payments_app.gateways.events import (
    ChargeRefunded,
    DisputeStatus,
    EventPayload,
    GatewayDispute,
    GatewayEvent,
    InvalidSignature,
    MoneyReceived,
    NotBelieved,
    OtherMode,
    PaymentAttemptFailed,
)
from payments_app.gateways.paymongo.api import PayMongoApi, SearchGivenUp
from payments_app.gateways.paymongo.objects import CURRENCY
from payments_app.gateways.paymongo.transport import NoAnswer, Refused
from payments_app.gateways.signatures import valid_signatures
from payments_app.gateways.untrusted import (
    UNEXPECTED,
    Unreadable,
    amount_of,
    currency_of,
    event_id_of,
    members_of,
    moment_or_none,
    of_mode,
    parsed,
    text_of,
    text_or,
)

# How long PayMongo's API may be behind its own event: so long the event is not taken, and comes again. That has to end
# before PayMongo gives up (12 times within 136 minutes), because it disables a webhook of which three were given up.
MAY_BE_LATE = timedelta(minutes=30)

# The names of the signatures, and whether what they sign is live.
_SIGNATURES = {"te": False, "li": True}

# Money hangs on these, also on those of them that we do not know. Of the others nothing concerns us: a QR code that
# ended can be replaced by another one in the same session, and sources are of an API that we do not use.
_ABOUT_MONEY = ("checkout_session.", "dispute.", "payment.", "payment_intent.", "refund.")

# What the states of a dispute are called; their names are not sure, so several are known for each.
_DISPUTE_STATUSES = {
    "inquiry": DisputeStatus.INQUIRY,
    "warning_needs_response": DisputeStatus.INQUIRY,
    "warning_under_review": DisputeStatus.INQUIRY,
    "warning_closed": DisputeStatus.INQUIRY_CLOSED,
    "inquiry_closed": DisputeStatus.INQUIRY_CLOSED,
    "created": DisputeStatus.NEEDS_RESPONSE,
    "needs_response": DisputeStatus.NEEDS_RESPONSE,
    "open": DisputeStatus.NEEDS_RESPONSE,
    "pending": DisputeStatus.NEEDS_RESPONSE,
    "in_review": DisputeStatus.UNDER_REVIEW,
    "submitted": DisputeStatus.UNDER_REVIEW,
    "under_review": DisputeStatus.UNDER_REVIEW,
    "won": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
}
_DUE = ("due_at", "evidence_due_at", "evidence_due_by", "respond_by")


class EventReader:
    """``livemode``: our key's mode, None if it is unknown. Without secrets every event is refused.

    ``place``: a place for several calls; a single one takes its own. An event that asks nothing needs none.
    """

    def __init__(
        self,
        api: PayMongoApi,
        secrets: Sequence[str],
        *,
        livemode: bool | None,
        place: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._api = api
        self._place = place
        self._secrets = secrets
        self._livemode = livemode
        self._readers: Mapping[str, Callable[[Mapping[str, Any]], EventPayload | None]] = {
            "checkout_session.payment.paid": self._session_paid,
            "payment.paid": self._payment_paid,
            "payment.failed": self._payment_failed,
            # Of the older generation; its resource may be the payment or the refund.
            "payment.refunded": self._refunded,
            "payment.refund.updated": self._refunded,
            "refund.created": self._refunded,
            "refund.updated": self._refunded,
            "refund.succeeded": self._refunded,
            "refund.failed": self._refunded,
            "dispute.created": self._dispute,
            "dispute.updated": self._dispute,
            "dispute.resolved": self._dispute_resolved,
        }

    def read(self, body: bytes, signature: str | None, *, received_at: datetime) -> GatewayEvent | OutcomeUnknown:
        """The event in a webhook's body. What it does not say of itself, or in no way that can be kept, is made up.

        OutcomeUnknown: the gateway did not answer, or does not say yet what an event of the last 30 minutes says.

        Raises:
            InvalidSignature: no secret signed it within the last 300 seconds (400).
            OtherMode: it is, or tells of an object, of the other mode than our key (400).
            GatewayUnavailable, GatewayBusy: the gateway would be asked, and there is no place for that (503).
        """
        signed_by = valid_signatures(signature, body, self._secrets, at=received_at) & _SIGNATURES.keys()
        if not signed_by:
            raise InvalidSignature
        event = members_of(parsed(body).get("data"))
        attributes = members_of(event.get("attributes"))
        thing = members_of(attributes.get("data"))
        self._require_mode(signed_by, event, thing)
        event_type = attributes.get("type")
        created_at = moment_or_none(attributes.get("created_at"))
        try:
            payload, is_readable = self._read(event_type, thing)
        except NoAnswer as error:
            return OutcomeUnknown(error.reason)
        if isinstance(payload, NotBelieved) and created_at and abs(received_at - created_at) < MAY_BE_LATE:
            return OutcomeUnknown("an event says that something is paid, and the gateway's answer does not")
        return GatewayEvent(
            event_id=event_id_of(event.get("id"), body),
            type=text_or(event_type, "unreadable"),
            reference=text_or(thing.get("id"), "none"),
            created_at=created_at or received_at,
            payload=payload,
            is_readable=is_readable,
        )

    def _require_mode(self, signed_by: Set[str], event: Mapping[str, Any], thing: Mapping[str, Any]) -> None:
        for holder in (event, thing):
            of_mode({**members_of(holder.get("attributes")), "id": holder.get("id")}, self._livemode)
        modes = {_SIGNATURES[name] for name in signed_by}
        if self._livemode is not None and self._livemode not in modes:
            raise OtherMode(text_or(event.get("id"), "none"))

    def _read(self, event_type: Any, thing: Mapping[str, Any]) -> tuple[EventPayload | None, bool]:
        """What became of what an event is about, and whether that could be read."""
        if not isinstance(event_type, str):
            return None, False
        if event_type not in self._readers:
            return None, not event_type.startswith(_ABOUT_MONEY)
        try:
            return self._readers[event_type](thing), True
        except (Refused, SearchGivenUp, *UNEXPECTED):  # Refused: the gateway knows no such object
            return None, False

    def _session_paid(self, thing: Mapping[str, Any]) -> CheckoutSession | NotBelieved:
        session = self._api.get_session(text_of(thing["id"]))
        is_paid = session.status == SessionStatus.SUCCEEDED
        return session if is_paid else NotBelieved(session.reference, session.money)

    def _payment_paid(self, thing: Mapping[str, Any]) -> MoneyReceived | NotBelieved:
        payment = self._api.get_payment(text_of(thing["id"]))
        return MoneyReceived(payment.money) if payment.is_paid else NotBelieved(payment.transaction_id, payment.money)

    def _payment_failed(self, thing: Mapping[str, Any]) -> MoneyReceived | PaymentAttemptFailed | None:
        payment = self._api.get_payment(text_of(thing["id"]))
        if payment.is_paid:
            return MoneyReceived(payment.money)
        if payment.status != "failed":
            return None
        session = CheckoutSession(reference=payment.transaction_id, status=SessionStatus.OPEN, money=payment.money)
        return PaymentAttemptFailed(session)

    def _refunded(self, thing: Mapping[str, Any]) -> GatewayRefund | ChargeRefunded:
        reference = text_of(thing["id"])
        if thing.get("type") != "payment" and not reference.startswith("pay_"):
            return self._api.get_refund(reference)
        with self._place():
            payment = self._api.get_payment(reference)
            listed = payment.refunds or self._api.refunds_of(payment)
            # One that does not say whose it is may say so if it is read by itself.
            refunds = tuple(each if each.refund_id else self._api.get_refund(each.reference) for each in listed)
        if not refunds:
            raise Unreadable
        return ChargeRefunded(
            transaction_id=payment.transaction_id,
            returned_minor=sum(each.amount_minor for each in refunds if isinstance(each.outcome, Approved)),
            currency=payment.money.currency,
            refunds=refunds,
            payment_id=payment.money.payment_id,
            consultation_id=payment.money.consultation_id,
        )

    def _dispute(self, thing: Mapping[str, Any]) -> GatewayDispute:
        """By the event alone: no call is known that reads a dispute. In doubt it is open, which returns no money."""
        status = _DISPUTE_STATUSES.get(text_or(thing["attributes"].get("status"), ""), DisputeStatus.NEEDS_RESPONSE)
        return self._dispute_in(status, thing)

    def _dispute_resolved(self, thing: Mapping[str, Any]) -> GatewayDispute:
        status = _DISPUTE_STATUSES[text_of(thing["attributes"]["status"])]
        if status not in (DisputeStatus.WON, DisputeStatus.LOST, DisputeStatus.INQUIRY_CLOSED):
            raise Unreadable
        return self._dispute_in(status, thing)

    def _dispute_in(self, status: DisputeStatus, thing: Mapping[str, Any]) -> GatewayDispute:
        attributes = thing["attributes"]
        named = attributes.get("payment_id") or attributes.get("payment")
        transaction_id = text_of(named["id"] if isinstance(named, Mapping) else named) if named else None
        if "amount" in attributes or transaction_id is None:
            amount, currency = amount_of(attributes["amount"], least=1), attributes.get("currency", CURRENCY)
        else:
            money = self._api.get_payment(transaction_id).money
            amount, currency = money.amount_minor, money.currency
        reason = attributes.get("reason")
        return GatewayDispute(
            reference=text_of(thing["id"]),
            transaction_id=transaction_id,
            amount_minor=amount,
            currency=currency_of(currency),
            reason=None if reason is None else text_or(reason, "unreadable"),
            status=status,
            due_at=next(filter(None, (moment_or_none(attributes.get(name)) for name in _DUE)), None),
        )
