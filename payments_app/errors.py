"""All errors that clients can get, as classes with a code and an HTTP status.

``code`` is the last part of the problem's ``type``. ``retryable`` means that the same request, with the same
idempotency key, may succeed later. ``api/problem_catalog.py`` has the title and the explanation of each error;
``api/problems.py`` renders them.
"""

from decimal import Decimal
from typing import Any, ClassVar

from payments_app.i18n.messages import N_, LocalizedMessage

# Seconds that a client should wait after a 503: long enough for a failover to begin, short enough for a person.
RETRY_AFTER_SECONDS = 2


class AppError(Exception):
    """The base class: an error response that the service decides on."""

    code: ClassVar[str]
    status: ClassVar[int]
    retryable: ClassVar[bool] = False
    text: ClassVar[str]

    def __init__(
        self,
        message: str | None = None,
        *,
        errors: dict[str, list[str]] | None = None,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        retryable: bool | None = None,
    ) -> None:
        self.message = message or self.text
        super().__init__(self.message)
        self.errors = errors
        self.data = data
        self.headers = headers or {}
        self.is_retryable = self.retryable if retryable is None else retryable


class MalformedRequest(AppError):
    code, status = "malformed-request", 400
    text = N_("The request body cannot be read; send valid JSON in UTF-8.")


class WebhookNotGenuine(MalformedRequest):
    """Not signed within the last five minutes with a configured secret."""

    code = "webhook-not-genuine"
    text = N_("The webhook is not signed by the gateway, or its body is not an event; check the signing secret.")


class WebhookOfOtherMode(MalformedRequest):
    """A test event for a live key, which means that no money moved; or a live event for a test key."""

    code = "webhook-of-other-mode"
    text = N_("The event is not of the mode of this service's key, test or live.")


class NotAuthenticated(AppError):
    """No token; or the token is expired, forged or revoked, or its user is disabled."""

    code, status = "not-authenticated", 401
    text = N_("A valid bearer token is required; log in to get one.")

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class InvalidCredentials(NotAuthenticated):
    """The same response for a wrong password, an unknown e-mail and a disabled user: it must not reveal which it is."""

    code = "invalid-credentials"
    text = N_("The e-mail or the password is wrong; check both and try again.")


class PaymentNotVerified(AppError):
    """The gateway does not confirm that this transaction pays this payment."""

    code, status = "payment-not-verified", 402
    text = N_("The gateway does not confirm this payment; check the transaction_id.")


class RefundDeclined(AppError):
    """The gateway declined the refund for good: no money was returned. The only error that is stored under its key."""

    code, status = "refund-declined", 402
    text = N_("The gateway declined the refund, and no money was returned; a new attempt needs a new idempotency key.")


class Forbidden(AppError):
    code, status = "forbidden", 403
    text = N_("You do not have permission for this.")


class ScopeMissing(AppError):
    """The API key is valid, but was not made for this."""

    code, status = "scope-missing", 403
    text = N_("This API key does not have the scope that this needs.")

    def __init__(self, scope: str) -> None:
        super().__init__(
            LocalizedMessage("This API key does not have the scope %(scope)s.", scope=scope), data={"scope": scope}
        )


class LoginRequired(Forbidden):
    """No API key may be used for this, whatever its scopes."""

    code = "login-required"
    text = N_("No API key may be used for this: log in.")


class SecondPersonNeeded(AppError):
    """The user who requested a refund wants to approve or reject it."""

    code, status = "second-person-needed", 403
    text = N_("You requested this refund: another admin has to approve or reject it.")


class HttpsRequired(AppError):
    """Sent over plain HTTP. The request was not processed, but others on the network may have read it and its token."""

    code, status = "https-required", 403
    text = N_("HTTPS required.")


class NotFound(AppError):
    code, status = "not-found", 404
    text = N_("Not found.")


class ConsultationNotFound(NotFound):
    code = "consultation-not-found"
    text = N_("Consultation not found")


class PaymentNotFound(NotFound):
    code = "payment-not-found"
    text = N_("Payment not found")


class CursorLost(AppError):
    """The database was restored from a backup, and other events may have the places that the reader knows."""

    code, status = "cursor-lost", 410
    text = N_("The feed has changed before this cursor: read it again from its beginning.")


class UserNotFound(NotFound):
    code = "user-not-found"
    text = N_("No user has this e-mail address.")


class RefundNotFound(NotFound):
    code = "refund-not-found"
    text = N_("Refund not found")


class IdempotencyKeyNotFound(NotFound):
    """No result *so far*: the request may still be running. Send it again with the same key, never with a new one."""

    code = "idempotency-key-not-found"
    text = N_("No result is stored under this key yet; send the same request again with the same key.")


class Conflict(AppError):
    code, status = "conflict", 409
    text = N_("The request conflicts with the current state; read it again before you go on.")


class ActivePaymentExists(Conflict):
    """The consultation already has a payment that is pending, processing, completed or partially refunded."""

    code = "active-payment-exists"
    text = N_("A payment for this consultation already exists; nothing more was charged.")

    def __init__(
        self,
        *,
        payment_id: int | None = None,
        payment_status: str | None = None,
        consequence: str = N_("nothing more was charged."),
        headers: dict[str, str] | None = None,
    ) -> None:
        if payment_id is None or payment_status is None:  # the broken index does not name the payment
            super().__init__(headers=headers)
            return
        super().__init__(
            LocalizedMessage(
                "A payment for this consultation already exists and is %(status)s; %(consequence)s",
                status=payment_status.replace("_", " "),
                consequence=consequence,
            ),
            data={
                "type": "existing",
                "payment_id": payment_id,
                "existing_payment_id": payment_id,
                "status": payment_status,
            },
            headers=headers,
        )

    @classmethod
    def instead_of_late_money(cls, *, payment_id: int, payment_status: str) -> "ActivePaymentExists":
        """For money that arrived after its payment had ended, while the consultation has another payment."""
        consequence = N_("the money that arrived too late is recorded, and staff return it.")
        return cls(payment_id=payment_id, payment_status=payment_status, consequence=consequence)


class VersionConflict(Conflict):
    """``expected_version`` is not the payment's (read it again first), or every attempt lost a race (try again)."""

    code = "version-conflict"
    text = N_("Another request changed the payment at the same moment; please try again.")

    @classmethod
    def stale_expectation(cls, *, expected_version: int, current_version: int) -> "VersionConflict":
        return cls(
            LocalizedMessage(
                "The payment is at version %(current)s, not %(expected)s; read it again before you change it.",
                current=current_version,
                expected=expected_version,
            ),
            data={"current_version": current_version},
        )

    @classmethod
    def lost_every_race(cls) -> "VersionConflict":
        return cls(retryable=True, headers={"Retry-After": "1"})


class InvalidTransition(Conflict):
    code = "invalid-transition"
    text = N_("The payment's status does not allow this; read the payment again.")

    def __init__(self, *, payment_status: str) -> None:
        super().__init__(
            LocalizedMessage(
                "The payment is %(status)s, and that status does not allow this; read the payment again.",
                status=payment_status.replace("_", " "),
            ),
            data={"status": payment_status},
        )


class PaymentDisputed(Conflict):
    """A dispute of the payment is open or lost: what the bank takes back must not be refunded as well."""

    code = "payment-disputed"
    text = N_("The patient's bank disputes this payment, so nothing of it can be refunded.")


class WebhookEndpointDisabled(Conflict):
    """Nothing is sent to a disabled endpoint, until it is enabled again."""

    code = "webhook-endpoint-disabled"
    text = N_("The webhook endpoint is disabled, so nothing is sent to it; enable it first.")


class TransactionAlreadyUsed(Conflict):
    code = "transaction-already-used"
    text = N_("This transaction_id has already paid another payment; send this payment's own.")


class RefundRepeated(Conflict):
    """The same amount of the same payment was requested a short time ago, and this request has no idempotency key.

    Only the caller knows whether it is a repetition or a second refund.
    """

    code = "refund-repeated"
    text = N_("A refund of the same amount was requested a short time ago; send allow_repeat to make a second one.")

    def __init__(self, *, refund_id: int, amount: Decimal, currency: str) -> None:
        super().__init__(
            LocalizedMessage(
                "Refund %(refund_id)s of this payment, also of %(amount)s %(currency)s, was requested a short time "
                "ago; send allow_repeat to make a second one.",
                refund_id=refund_id,
                amount=amount,
                currency=currency,
            ),
            data={"refund_id": refund_id},
        )


class RefundNotRequested(Conflict):
    code = "refund-not-requested"
    text = N_("This refund does not wait for approval.")

    def __init__(self, *, refund_status: str) -> None:
        super().__init__(
            LocalizedMessage(
                "This refund does not wait for approval: it is %(status)s.",
                status=refund_status.replace("_", " "),
            ),
            data={"status": refund_status},
        )


class RefundRequestLapsed(Conflict):
    """It waited longer than ``REQUEST_TTL``; the next ``payments expire`` marks it failed."""

    code = "refund-request-lapsed"
    text = N_("This refund waited for approval too long, and was not made; request it again.")


class RefundNotToBeSent(Conflict):
    code = "refund-not-to-be-sent"
    text = N_("Staff have no money to send for this refund.")

    def __init__(self, *, refund_status: str) -> None:
        super().__init__(
            LocalizedMessage(
                "Staff have no money to send for this refund: it is %(status)s.",
                status=refund_status.replace("_", " "),
            ),
            data={"status": refund_status},
        )


class RefundAlreadySent(Conflict):
    """Another transfer is recorded for this refund."""

    code = "refund-already-sent"
    text = N_("The money of this refund was sent before, by another transfer.")

    def __init__(self, *, reference: str) -> None:
        super().__init__(data={"reference": reference})


class TransferAlreadyUsed(Conflict):
    """One transfer returns the money of one refund."""

    code = "transfer-already-used"
    text = N_("This transfer has already returned the money of another refund; send this refund's own reference.")


class RefundableChanged(Conflict):
    """``expected_refundable`` is not the amount that can still be refunded: another refund was made meanwhile."""

    code = "refundable-changed"
    text = N_("The amount that can still be refunded is not the expected one; read the payment again.")

    def __init__(self, *, left: Decimal, currency: str, as_number: float) -> None:
        super().__init__(
            LocalizedMessage(
                "%(left)s %(currency)s can still be refunded, not the expected amount; read the payment again.",
                left=left,
                currency=currency,
            ),
            data={"refundable": as_number},
        )


class UserExists(Conflict):
    code = "user-exists"
    text = N_("A user with this e-mail address already exists; use another address.")


class ConsultationHasPayments(Conflict):
    code = "consultation-has-payments"
    text = N_(
        "The consultation has payments: its patient cannot change, and its fee cannot change while a payment is active."
    )


class ConsultationCurrency(Conflict):
    """The consultation's fee is in another currency than the service's, so the same number is another amount."""

    code = "consultation-currency"
    text = N_("The consultation was registered in another currency; the booking system must register it again.")

    def __init__(self, *, of_consultation: str, of_payments: str) -> None:
        super().__init__(
            LocalizedMessage(
                "The consultation was registered in %(registered)s, but payments are now in %(taken)s; "
                "the booking system must register it again.",
                registered=of_consultation,
                taken=of_payments,
            ),
            data={"consultation_currency": of_consultation, "payment_currency": of_payments},
        )


class ConsultationClosed(Conflict):
    """Nobody can pay it any more, and it no longer changes."""

    code = "consultation-closed"
    text = N_("The consultation is closed: it can be neither paid nor changed.")

    @classmethod
    def to_late_money(cls) -> "ConsultationClosed":
        """For money of a payment that had ended before it came."""
        return cls(N_("The consultation is closed; the money that arrived too late is recorded, and staff return it."))


class PaymentLinksOff(Conflict):
    """In production a link's address is a setting, and never what a request calls this service."""

    code = "payment-links-off"
    text = N_("This service makes no payment links, because its setting PUBLIC_URL is missing; ask its operator.")


class ReferenceFixed(Conflict):
    """Once a consultation has a reference, it keeps it: other systems know the consultation by it."""

    code = "reference-fixed"
    text = N_("The consultation already has another reference, which cannot change.")

    def __init__(self, *, reference: str | None = None) -> None:
        super().__init__(data={"reference": reference} if reference is not None else None)


class ReferenceTaken(Conflict):
    code = "reference-taken"
    text = N_("Another consultation has this reference; send this consultation's own.")


class LockTimeout(Conflict):
    """A row stays locked and others wait for it, or a configured lock was not acquired in time.

    Nothing was changed; the same request may succeed in a moment.
    """

    code = "lock-timeout"
    retryable = True
    text = N_("Another request for the same payment is still running; please send the same request again.")

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class PreconditionFailed(AppError):
    code, status = "precondition-failed", 412
    text = N_("If-Match does not match the payment's current version; read the payment again.")

    def __init__(self, *, current_version: int) -> None:
        super().__init__(data={"current_version": current_version})


class UnsupportedMediaType(AppError):
    code, status = "unsupported-media-type", 415
    text = N_("The body's media type is not supported; send application/json.")


class ValidationFailed(AppError):
    """The body, the query or a header has an invalid value; ``errors`` names each field."""

    code, status = "validation-failed", 422
    text = N_("Some values are invalid; correct the fields that are named.")

    def __init__(self, errors: dict[str, list[str]], message: str | None = None) -> None:
        super().__init__(message, errors=errors)


class RefundExceedsBalance(ValidationFailed):
    code = "refund-exceeds-balance"
    text = N_("The amount is more than can still be refunded; refund less.")

    def __init__(self, *, left: Decimal, currency: str) -> None:
        text = LocalizedMessage("At most %(left)s %(currency)s can still be refunded.", left=left, currency=currency)
        super().__init__({"amount": [text]})


class NotRefundable(AppError):
    """The gateway cannot do it, whatever is asked: nothing was sent."""

    code, status = "not-refundable", 422
    text = N_("Payments by this method cannot be refunded through the gateway; return the money another way.")

    @classmethod
    def in_parts(cls) -> "NotRefundable":
        return cls(N_("Payments by this method can only be refunded whole; return the full amount."))


class IdempotencyKeyReused(ValidationFailed):
    code = "idempotency-key-reused"
    text = N_("This idempotency key was used for a different request; a new request needs a new key.")

    def __init__(self, fields: list[str]) -> None:
        differs = N_("Differs from the first request with this idempotency key.")
        super().__init__({field: [differs] for field in fields})


class GatewayRefused(AppError):
    """The gateway refused to open a session: check its settings and this service's."""

    code, status = "gateway-refused", 502
    text = N_(
        "The gateway refused to open a session, and nothing was charged; choose another method or ask the clinic."
    )


class Unavailable(AppError):
    """A temporary fault of the service. Nothing was lost; send the same request with the same key again."""

    code, status = "unavailable", 503
    retryable = True
    text = N_("The service cannot answer at the moment; please send the same request again.")

    def __init__(self, message: str | None = None, *, data: dict[str, Any] | None = None) -> None:
        super().__init__(message, data=data, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


class DatabaseUnavailable(Unavailable):
    code = "database-unavailable"
    text = N_("The database cannot be reached at the moment; please send the same request again.")


class DatabaseBusy(Unavailable):
    code = "database-busy"
    text = N_("The database is busy at the moment; please send the same request again.")


class Overloaded(Unavailable):
    """The request waited too long for a free thread. Nothing of it was done."""

    code = "overloaded"
    text = N_("The service is overloaded and has not begun this request; please send the same request again.")


class NotReady(Unavailable):
    """A protection against double payments or excessive refunds is missing; ``failed`` names the failed checks."""

    code = "not-ready"
    text = N_("The service is not ready to take payments; please send the same request again later.")

    def __init__(self, *, failed: list[str] | None = None) -> None:
        super().__init__(data={"failed": failed} if failed else None)


class GatewayUnavailable(Unavailable):
    """No response from the gateway; or none to the calls before, so that it was not called. Nothing was written."""

    code = "gateway-unavailable"
    text = N_("The payment gateway does not answer at the moment; please send the same request again.")


class GatewayBusy(GatewayUnavailable):
    """As many requests as may wait for gateways do so already. This one was refused at once, and changed nothing."""

    code = "gateway-busy"
    text = N_("Many requests wait for the payment gateway at the moment; please send the same request again.")
