"""Cards by Stripe, through its official SDK: https://docs.stripe.com/api/payment_intents and /refunds.

Each call that changes something carries a gateway key made of our own row's id (``Idempotency-Key`` of Stripe's API),
under which the SDK also repeats it: so it happens once. Stripe forgets such keys after about a day.
"""

import logging
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import stripe
from stripe import RequestOptions

from config import MINOR_DIGITS
from payments_app.gateways.base import (
    Approved,
    Charge,
    CheckoutSession,
    Declined,
    GatewayRefund,
    GatewayRefundRequest,
    Headers,
    OutcomeUnknown,
    Reachable,
    SessionRequest,
)
from payments_app.gateways.capabilities import Capabilities, CheckoutKind, Refundable
from payments_app.gateways.events import GatewayEvent, OtherMode
from payments_app.gateways.stripe.objects import refund_of, session_of
from payments_app.gateways.stripe.webhooks import read_event
from payments_app.gateways.untrusted import livemode_of, of_mode
from payments_app.i18n.messages import N_, LocalizedMessage

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Repetitions by the SDK after no answer, a 409 or a 5xx, with pauses of at most 0.5 and 1 second in between.
NETWORK_RETRIES = 2
# Seconds: what each attempt gives up for those pauses, so that three end within three timeouts.
PAUSE_SECONDS = 0.5
# The largest page of a list that Stripe gives.
PAGE_SIZE = 100

# No PaymentIntent has this id: asking for it costs nothing, and shows nobody's payment.
NO_PAYMENT_INTENT = "pi_000000000000000000000000"

# What Stripe counts otherwise than in hundredths: https://docs.stripe.com/currencies#zero-decimal and #three-decimal.
ZERO_DECIMAL_CURRENCIES = frozenset(
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"]
)
THREE_DECIMAL_CURRENCIES = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])

_PAYMENT_INTENT = re.compile(r"pi_[A-Za-z0-9_]+")

# Seconds for which Stripe surely keeps a response under its key: https://docs.stripe.com/api/idempotent_requests.
REMEMBERS_KEYS_SECONDS = 86_400

# Nobody else is told how long our calls take.
stripe.enable_telemetry = False


class StripeGateway:
    """``timeout_seconds`` is for one attempt, of which there are up to three; all of them end within the lease."""

    def __init__(
        self,
        api_key: str,
        *,
        api_base: str,
        timeout_seconds: int,
        lease_seconds: int,
        webhook_secrets: Sequence[str] = (),
    ) -> None:
        client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base},
            http_client=stripe.RequestsClient(timeout=_connect_and_read(timeout_seconds - PAUSE_SECONDS)),
            # Resume must not overtake a live worker, so no more attempts than end before the lease of a refund does.
            max_network_retries=max(0, min(NETWORK_RETRIES, (lease_seconds - 1) // timeout_seconds - 1)),
        )
        self._intents, self._refunds = client.v1.payment_intents, client.v1.refunds
        self._webhook_secrets = webhook_secrets
        self.livemode = livemode_of(api_key)
        self.has_webhook_secret = bool(webhook_secrets)
        self.capabilities = Capabilities(
            methods={"stripe": Refundable.IN_PARTS},
            currencies=None,
            checkout=CheckoutKind.CLIENT_SECRET,
            remembers_keys_seconds=REMEMBERS_KEYS_SECONDS,
            session_seconds=None,
            ends_sessions=True,
            can_be_asked=True,
        )

    def minor_digits(self, currency: str) -> int:
        if currency in ZERO_DECIMAL_CURRENCIES:
            return 0
        return 3 if currency in THREE_DECIMAL_CURRENCIES else 2

    def open_session(self, request: SessionRequest) -> CheckoutSession | Declined | OutcomeUnknown:
        charge = request.charge
        if self.minor_digits(charge.currency) != MINOR_DIGITS:
            # A payment from when the settings had another currency: Stripe would bill 100 times too much, or a tenth.
            return Declined(
                LocalizedMessage("Stripe does not count %(currency)s in hundredths.", currency=charge.currency)
            )
        return _call(
            lambda: self._session_of(
                self._intents.create(
                    {
                        "amount": charge.amount_minor,
                        "currency": charge.currency.lower(),
                        "metadata": {
                            "payment_id": str(charge.payment_id),
                            "consultation_id": str(charge.consultation_id),
                        },
                    },
                    {"idempotency_key": request.gateway_key},
                )
            )
        )

    def look_up(self, charge: Charge, transaction_id: str) -> CheckoutSession | Declined | OutcomeUnknown:
        if not _PAYMENT_INTENT.fullmatch(transaction_id):
            return Declined(N_("It is no payment of Stripe's: the ids of those begin with pi_."))
        # A PaymentIntent is both, a session and a transaction.
        return self._look_up(transaction_id, of_other_mode=_PAYS_NOTHING)

    def look_up_session(self, charge: Charge, reference: str) -> CheckoutSession | Declined | OutcomeUnknown:
        return self._look_up(reference, of_other_mode=_NOT_BELIEVED)

    def cancel_session(self, charge: Charge, reference: str) -> CheckoutSession | Declined | OutcomeUnknown:
        # Another key for each call: Stripe would repeat a 500 under the same one for a day, and to cancel what is
        # cancelled already is an error that the look-up explains. Only a refusal is looked into, and nothing is tried
        # again: it may follow another call within the same request, and whoever waits for that waits for both.
        once: RequestOptions = {"max_network_retries": 0}
        keyed: RequestOptions = {**once, "idempotency_key": f"cancel-{charge.payment_id}-{uuid.uuid4()}"}
        cancelled = _call(lambda: self._session_of(self._intents.cancel(reference, {}, keyed)))
        if not isinstance(cancelled, Declined):
            return cancelled
        return _call(lambda: self._session_of(self._intents.retrieve(reference, options=once)))

    def refund(self, order: GatewayRefundRequest) -> Approved | Declined | OutcomeUnknown:
        answer = _call(
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
        return answer.outcome if isinstance(answer, GatewayRefund) else answer

    def look_up_refund(self, order: GatewayRefundRequest) -> Approved | Declined | OutcomeUnknown | None:
        found = _call(lambda: self._find_refund(order))
        if isinstance(found, Declined):
            # That Stripe has no such payment is no proof that none of it was returned: another account's key may
            # have been configured since.
            return OutcomeUnknown(found.reason)
        return found.outcome if isinstance(found, GatewayRefund) else found

    def ping(self) -> Reachable | Declined | OutcomeUnknown:
        """Whether Stripe answers, and knows our key (Declined: it does not), by asking for a payment that is none."""
        try:
            answered = self._intents.retrieve(NO_PAYMENT_INTENT, options={"max_network_retries": 0})
        except stripe.InvalidRequestError as refusal:
            if refusal.code != "resource_missing":
                return OutcomeUnknown(f"it refused the question: {refusal.code}")
            return Reachable(_date_of(refusal.headers or {}))
        except (stripe.AuthenticationError, stripe.PermissionError) as refusal:
            return Declined(f"HTTP status {refusal.http_status}")
        except stripe.StripeError as error:
            return OutcomeUnknown(type(error).__name__)
        return Reachable(_date_of(answered.last_response.headers if answered.last_response else {}))

    def read_event(self, body: bytes, headers: Headers, *, received_at: datetime) -> GatewayEvent:
        signature = headers.get("Stripe-Signature")
        return read_event(body, signature, self._webhook_secrets, livemode=self.livemode, received_at=received_at)

    def _look_up(
        self, reference: str, *, of_other_mode: Declined | OutcomeUnknown
    ) -> CheckoutSession | Declined | OutcomeUnknown:
        return _call(lambda: self._session_of(self._intents.retrieve(reference)), of_other_mode=of_other_mode)

    def _find_refund(self, order: GatewayRefundRequest) -> GatewayRefund | None:
        if order.reference is not None:
            return self._refund_of(self._refunds.retrieve(order.reference))
        made = self._refunds.list({"payment_intent": order.transaction_id, "limit": PAGE_SIZE}).auto_paging_iter()
        ours = map(self._refund_of, made)
        return next((refund for refund in ours if refund.refund_id == order.refund_id), None)

    def _session_of(self, intent: stripe.PaymentIntent) -> CheckoutSession:
        return session_of(of_mode(intent.to_dict(), self.livemode))

    def _refund_of(self, refund: stripe.Refund) -> GatewayRefund:
        return refund_of(of_mode(refund.to_dict(), self.livemode))


# What an object of the other mode says of a transaction that somebody named, and of all that is ours: that neither
# happened nor not.
_PAYS_NOTHING = Declined(N_("It is not of the mode of this service's key, test or live."))
_NOT_BELIEVED = OutcomeUnknown("an object of the other mode, test or live, than our key's")


def _connect_and_read(seconds: float) -> tuple[float, float]:
    """The library's two timeouts, which follow one another: a server that is there is reached in much less."""
    return seconds / 4, seconds * 3 / 4


def _date_of(headers: Mapping[str, str]) -> datetime | None:
    """What the header Date says, by which HTTP tells when an answer was made (RFC 9110, 6.6.1)."""
    try:
        return parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError):
        return None


def _call(
    call: Callable[[], Result], *, of_other_mode: Declined | OutcomeUnknown = _NOT_BELIEVED
) -> Result | Declined | OutcomeUnknown:
    """The call's answer, or what its failure says of whether anything happened."""
    try:
        return call()
    except (stripe.CardError, stripe.InvalidRequestError) as refusal:
        # Read, understood, and refused for good (400, 402, 404).
        return Declined(str(refusal.user_message or refusal.code or "The gateway refused it."))
    except OtherMode as error:
        log.warning("Stripe answered with %s: %s", _NOT_BELIEVED.reason, error.reference)
        return of_other_mode
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return OutcomeUnknown(f"an answer that cannot be read: {type(error).__name__}")
    except stripe.StripeError as error:
        # No connection, a timeout, a 5xx, a busy key (409), too many requests, or a key of ours that Stripe does
        # not know: none of them says that an earlier attempt of the same call had no effect either.
        return OutcomeUnknown(f"{type(error).__name__}, HTTP status {error.http_status}")
