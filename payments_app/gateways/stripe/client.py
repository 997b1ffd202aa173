"""Cards by Stripe, through its official SDK: https://docs.stripe.com/api/checkout/sessions, /payment_intents, /refunds.

Each call that changes something has an ``Idempotency-Key`` for Stripe, made from the id of our own row. The SDK repeats
the call with the same key, so it has one effect. Stripe forgets such keys after about a day.
"""

import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar

import stripe
from stripe import RequestOptions

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
    Headers,
    ListedPayment,
    OutcomeUnknown,
    Reachable,
    SessionRequest,
    SessionStatus,
)
from payments_app.gateways.capabilities import Capabilities, CheckoutKind, Refundable
from payments_app.gateways.events import GatewayDispute, GatewayEvent, OtherMode
from payments_app.gateways.stripe.hosted import SESSION_SECONDS, metadata_of, session_params
from payments_app.gateways.stripe.objects import (
    charge_of,
    checkout_session_of,
    is_checkout_session,
    refund_of,
    session_of,
)
from payments_app.gateways.stripe.webhooks import read_event
from payments_app.gateways.untrusted import UNEXPECTED, livemode_of, of_mode
from payments_app.i18n.messages import N_, LocalizedMessage

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Repetitions by the SDK after no response, a 409 or a 5xx, with pauses of at most 0.5 and 1 second.
NETWORK_RETRIES = 2
# Seconds by which each attempt is shortened for those pauses, so that three attempts end within three timeouts.
PAUSE_SECONDS = 0.5
# Stripe's maximum page size.
PAGE_SIZE = 100

# No PaymentIntent has this id: a request for it changes nothing, and returns no patient's payment.
NO_PAYMENT_INTENT = "pi_000000000000000000000000"

# Currencies that Stripe does not count in hundredths: https://docs.stripe.com/currencies#zero-decimal and
# #three-decimal.
ZERO_DECIMAL_CURRENCIES = frozenset(
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"]
)
THREE_DECIMAL_CURRENCIES = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])

_PAYMENT_INTENT = re.compile(r"pi_[A-Za-z0-9_]+")

# Seconds for which Stripe surely keeps a response under its key: https://docs.stripe.com/api/idempotent_requests.
REMEMBERS_KEYS_SECONDS = 86_400

# Do not report the duration of our calls to Stripe.
stripe.enable_telemetry = False


class _AdmittedClient(stripe.RequestsClient):
    """The SDK's HTTP client, which tells the breaker of each attempt whether it was answered.

    Not of each call, which may be three attempts: so a mute gateway is noticed after one timeout.
    """

    def __init__(self, admission: Admission, *, timeout: tuple[float, float]) -> None:
        super().__init__(timeout=timeout)
        self._admission = admission

    def request(  # type: ignore[override]  # as the class that it extends
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        with self._admission.call(stripe.APIConnectionError):
            return super().request(method, url, headers, post_data)


class StripeGateway:
    """``timeout_seconds`` is for one attempt. Up to three attempts are made, and all end within ``lease_seconds``."""

    def __init__(
        self,
        api_key: str,
        *,
        api_base: str,
        timeout_seconds: int,
        lease_seconds: int,
        admission: Admission,
        webhook_secrets: Sequence[str] = (),
        is_hosted: bool = False,
    ) -> None:
        self._admission = admission
        client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base},
            http_client=_AdmittedClient(admission, timeout=_connect_and_read(timeout_seconds - PAUSE_SECONDS)),
            # `payments resume` must not overtake a live worker, so all attempts must end before the lease of a refund.
            max_network_retries=max(0, min(NETWORK_RETRIES, (lease_seconds - 1) // timeout_seconds - 1)),
        )
        self._intents, self._refunds = client.v1.payment_intents, client.v1.refunds
        self._charges = client.v1.charges
        self._sessions, self._is_hosted = client.v1.checkout.sessions, is_hosted
        self._webhook_secrets = webhook_secrets
        self.livemode = livemode_of(api_key)
        self.has_webhook_secret = bool(webhook_secrets)
        self.capabilities = Capabilities(
            methods={"stripe": Refundable.IN_PARTS},
            currencies=None,
            checkout=CheckoutKind.REDIRECT if is_hosted else CheckoutKind.CLIENT_SECRET,
            remembers_keys_seconds=REMEMBERS_KEYS_SECONDS,
            session_seconds=SESSION_SECONDS if is_hosted else None,
            ends_sessions=True,
            can_be_asked=True,
        )

    def place(self) -> AbstractContextManager[None]:
        return self._admission.place()

    def minor_digits(self, currency: str) -> int:
        if currency in ZERO_DECIMAL_CURRENCIES:
            return 0
        return 3 if currency in THREE_DECIMAL_CURRENCIES else 2

    def open_session(self, request: SessionRequest) -> CheckoutSession | Declined | OutcomeUnknown:
        charge = request.charge
        if self.minor_digits(charge.currency) != MINOR_DIGITS:
            # The payment is older than a change of PAYMENT_CURRENCY: Stripe would charge 100 times too much, or a
            # tenth.
            return Declined(
                LocalizedMessage("Stripe does not count %(currency)s in hundredths.", currency=charge.currency)
            )
        key: RequestOptions = {"idempotency_key": request.gateway_key}
        if self._is_hosted:
            return _call(lambda: self._checkout_session_of(self._sessions.create(session_params(request), key)))
        return _call(
            lambda: self._session_of(
                self._intents.create(
                    {
                        "amount": charge.amount_minor,
                        "currency": charge.currency.lower(),
                        "metadata": metadata_of(charge),
                    },
                    key,
                )
            )
        )

    def look_up(self, charge: Charge, transaction_id: str) -> CheckoutSession | Declined | OutcomeUnknown:
        if not _PAYMENT_INTENT.fullmatch(transaction_id):
            return Declined(N_("It is no payment of Stripe's: the ids of those begin with pi_."))
        # A PaymentIntent is both a session and a transaction.
        return self._look_up(transaction_id, of_other_mode=_OTHER_MODE_DECLINED)

    def look_up_session(self, charge: Charge, reference: str) -> CheckoutSession | Declined | OutcomeUnknown:
        if is_checkout_session(reference):
            return _call(lambda: self._retrieve_checkout_session(reference))
        return self._look_up(reference, of_other_mode=_OTHER_MODE_UNKNOWN)

    def cancel_session(self, charge: Charge, reference: str) -> CheckoutSession | Declined | OutcomeUnknown:
        # A new key for each call: with the same key, Stripe would repeat a 500 for a day. Cancelling twice is safe: the
        # second call is refused, and the look-up shows why. Without retries, and with a look-up only after a refusal:
        # this may be the second gateway call of one HTTP request, whose client waits for both.
        no_retries: RequestOptions = {"max_network_retries": 0}
        with_key: RequestOptions = {**no_retries, "idempotency_key": f"cancel-{charge.payment_id}-{uuid.uuid4()}"}
        if is_checkout_session(reference):
            ended = _call(lambda: self._checkout_session_of(self._sessions.expire(reference, {}, with_key)))
            if not isinstance(ended, Declined):
                return ended
            return _call(lambda: self._retrieve_checkout_session(reference, no_retries))
        cancelled = _call(lambda: self._session_of(self._intents.cancel(reference, {}, with_key)))
        if not isinstance(cancelled, Declined):
            return cancelled
        return _call(lambda: self._session_of(self._intents.retrieve(reference, options=no_retries)))

    def refund(self, order: GatewayRefundRequest) -> Approved | Declined | OutcomeUnknown:
        result = _call(
            lambda: self._refund_of(
                self._refunds.create(
                    {
                        "payment_intent": order.transaction_id,
                        "amount": order.amount_minor,
                        "metadata": {"refund_id": str(order.refund_id), "payment_id": str(order.payment_id)},
                    },
                    {"idempotency_key": f"refund-{order.refund_id}"},
                )
            )
        )
        return result.outcome if isinstance(result, GatewayRefund) else result

    def look_up_refund(self, order: GatewayRefundRequest) -> Approved | Declined | OutcomeUnknown | None:
        found = _call(lambda: self._find_refund(order))
        if isinstance(found, Declined):
            # "No such payment" does not prove that no money was returned: STRIPE_API_KEY may belong to another account
            # by now.
            return OutcomeUnknown(found.reason)
        return found.outcome if isinstance(found, GatewayRefund) else found

    def ping(self) -> Reachable | Declined | OutcomeUnknown:
        """Whether Stripe responds and accepts our key (Declined: it does not). Looks up an id that does not exist."""
        try:
            intent = self._intents.retrieve(NO_PAYMENT_INTENT, options={"max_network_retries": 0})
        except stripe.InvalidRequestError as refusal:
            if refusal.code != "resource_missing":
                return OutcomeUnknown(f"it refused the request: {refusal.code}")
            return Reachable(_date_of(refusal.headers or {}))
        except (stripe.AuthenticationError, stripe.PermissionError) as refusal:
            return Declined(f"HTTP status {refusal.http_status}")
        except stripe.StripeError as error:
            return OutcomeUnknown(type(error).__name__)
        return Reachable(_date_of(intent.last_response.headers if intent.last_response else {}))

    def read_event(self, body: bytes, headers: Headers, *, received_at: datetime) -> GatewayEvent | OutcomeUnknown:
        signature = headers.get("Stripe-Signature")
        event = read_event(body, signature, self._webhook_secrets, livemode=self.livemode, received_at=received_at)
        if isinstance(event.payload, GatewayDispute):
            return self._with_our_ids(event, event.payload)
        return event

    def _with_our_ids(self, event: GatewayEvent, dispute: GatewayDispute) -> GatewayEvent | OutcomeUnknown:
        """An event of a dispute, which may overtake those of its money, with our ids from the PaymentIntent.

        A dispute has no metadata of ours. OutcomeUnknown: Stripe did not say, and sends the event again.
        """
        if dispute.transaction_id is None:
            return event
        match self._look_up(dispute.transaction_id, of_other_mode=_OTHER_MODE_DECLINED):
            case OutcomeUnknown() as unknown:
                return unknown
            case Declined():
                return event
            case CheckoutSession(money=money):
                named = replace(dispute, payment_id=money.payment_id, consultation_id=money.consultation_id)
                return replace(event, payload=named)

    def look_up_money(self, transaction_id: str) -> GatewayPayment | OutcomeUnknown | None:
        money = _call(lambda: self._money_of(transaction_id), of_other_mode=_OTHER_MODE_DECLINED)
        return None if isinstance(money, Declined) else money

    def _money_of(self, transaction_id: str) -> GatewayPayment | None:
        intent = self._intents.retrieve(transaction_id)
        try:
            return self._session_of(intent).money
        except UNEXPECTED:
            return None  # nor will it be readable the next time

    def list_payments(self, since: datetime, until: datetime) -> Iterator[ListedPayment]:
        # Charges, not PaymentIntents: those are created with the session, long before the money moves.
        return _listed(self._charges.list, _created(since, until), self._charge_of)

    def list_refunds(self, since: datetime, until: datetime) -> Iterator[GatewayRefund]:
        return _listed(self._refunds.list, _created(since, until), self._refund_of)

    def find_listed_payment(self, reference: str) -> ListedPayment | None:
        if not _PAYMENT_INTENT.fullmatch(reference):
            return _found(lambda: self._charge_of(self._charges.retrieve(reference)))
        session = _found(lambda: self._session_of(self._intents.retrieve(reference)))
        if session is None:
            return None
        is_paid = session.status == SessionStatus.SUCCEEDED
        return ListedPayment(reference=reference, money=session.money, is_paid=is_paid)

    def find_listed_refund(self, reference: str) -> GatewayRefund | None:
        return _found(lambda: self._refund_of(self._refunds.retrieve(reference)))

    def _look_up(
        self, reference: str, *, of_other_mode: Declined | OutcomeUnknown
    ) -> CheckoutSession | Declined | OutcomeUnknown:
        return _call(lambda: self._session_of(self._intents.retrieve(reference)), of_other_mode=of_other_mode)

    def _find_refund(self, order: GatewayRefundRequest) -> GatewayRefund | None:
        if order.reference is not None:
            return self._refund_of(self._refunds.retrieve(order.reference))
        refunds = self._refunds.list({"payment_intent": order.transaction_id, "limit": PAGE_SIZE}).auto_paging_iter()
        return next((refund for refund in map(self._refund_of, refunds) if refund.refund_id == order.refund_id), None)

    def _session_of(self, intent: stripe.PaymentIntent) -> CheckoutSession:
        return session_of(of_mode(intent.to_dict(), self.livemode))

    def _retrieve_checkout_session(self, reference: str, options: RequestOptions | None = None) -> CheckoutSession:
        # With its PaymentIntent, which alone says whether money that takes days is still on its way.
        return self._checkout_session_of(self._sessions.retrieve(reference, {"expand": ["payment_intent"]}, options))

    def _checkout_session_of(self, session: stripe.checkout.Session) -> CheckoutSession:
        return checkout_session_of(of_mode(session.to_dict(), self.livemode))

    def _charge_of(self, charge: stripe.Charge) -> ListedPayment:
        return charge_of(of_mode(charge.to_dict(), self.livemode))

    def _refund_of(self, refund: stripe.Refund) -> GatewayRefund:
        return refund_of(of_mode(refund.to_dict(), self.livemode))


# The results for an object of the other mode. A transaction that a caller presents does not pay; for our own sessions
# and refunds, such an object proves neither success nor failure.
_OTHER_MODE_DECLINED = Declined(N_("It is not of the mode of this service's key, test or live."))
_OTHER_MODE_UNKNOWN = OutcomeUnknown("an object whose mode (test or live) is not that of our key")


def _connect_and_read(seconds: float) -> tuple[float, float]:
    """The library's two timeouts, which add up. A quarter is plenty to connect to a server that is up."""
    return seconds / 4, seconds * 3 / 4


def _date_of(headers: Mapping[str, str]) -> datetime | None:
    """The time in the Date header of a response (RFC 9110, 6.6.1); None if there is none."""
    try:
        return parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError):
        return None


def _call(
    call: Callable[[], Result], *, of_other_mode: Declined | OutcomeUnknown = _OTHER_MODE_UNKNOWN
) -> Result | Declined | OutcomeUnknown:
    """The result of the call, or what its failure means: Declined or OutcomeUnknown."""
    try:
        return call()
    except (stripe.CardError, stripe.InvalidRequestError) as refusal:
        # Refused permanently (400, 402, 404).
        return Declined(str(refusal.user_message or refusal.code or "The gateway refused it."))
    except OtherMode as error:
        log.warning("Stripe returned %s: %s", _OTHER_MODE_UNKNOWN.reason, error.reference)
        return of_other_mode
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return OutcomeUnknown(f"an unreadable response: {type(error).__name__}")
    except stripe.StripeError as error:
        # No connection, a timeout, a 5xx, an idempotency key in use (409), too many requests, or a refused API key:
        # none of these proves that an earlier attempt of the same call had no effect.
        return OutcomeUnknown(f"{type(error).__name__}, HTTP status {error.http_status}")


def _created(since: datetime, until: datetime) -> dict[str, Any]:
    return {"created": {"gte": int(since.timestamp()), "lt": int(until.timestamp())}, "limit": PAGE_SIZE}


def _listed(
    list_page: Callable[[Any], "stripe.ListObject[Any]"], params: dict[str, Any], convert: Callable[[Any], Result]
) -> Iterator[Result]:
    """Every object of a list, newest first.

    Raises:
        GatewayUnavailable: a page was not answered, or cannot be read (503).
    """
    has_more = True
    while has_more:
        page, objects = _read(partial(_page, list_page, params, convert))
        yield from objects
        has_more = page.has_more and bool(page.data)
        if has_more:
            params = {**params, "starting_after": page.data[-1].id}


def _page(
    list_page: Callable[[Any], "stripe.ListObject[Any]"], params: dict[str, Any], convert: Callable[[Any], Result]
) -> tuple["stripe.ListObject[Any]", list[Result]]:
    page = list_page(params)
    return page, [convert(each) for each in page.data]


def _found(call: Callable[[], Result]) -> Result | None:
    """What the call finds; None if Stripe has no such object.

    Raises:
        GatewayUnavailable: it was not answered, or cannot be read (503).
    """

    def find() -> Result | None:
        try:
            return call()
        except stripe.InvalidRequestError as refusal:
            if refusal.code != "resource_missing":
                raise
            return None

    return _read(find)


def _read(call: Callable[[], Result]) -> Result:
    result = _call(call)
    if isinstance(result, Declined | OutcomeUnknown):
        raise GatewayUnavailable(str(result.reason))
    return result
