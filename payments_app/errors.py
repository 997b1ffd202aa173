"""Everything that can go wrong for a caller, as classes that know their HTTP status.

``code`` is the last part of the problem's ``type``. ``retryable`` answers one question: may the same request, with the
same idempotency key, succeed later? How they are shown is ``problems.py``'s business.
"""

from typing import Any, ClassVar

# How long a client is asked to wait after a 503: long enough for a failover to begin, short enough for a person.
RETRY_AFTER_SECONDS = 2


class AppError(Exception):
    """The root: an answer other than success, decided by us."""

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
    text = "The request body could not be read."


class WebhookNotGenuine(MalformedRequest):
    """Not signed with a secret that we know within the last five minutes, or no event."""

    code = "webhook-not-genuine"
    text = "This is no event that the gateway has signed."


class NotAuthenticated(AppError):
    """No token, or one that is expired, forged, revoked or its user's who was disabled."""

    code, status = "not-authenticated", 401
    text = "A valid bearer token is required."

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class InvalidCredentials(NotAuthenticated):
    """One answer for a wrong password, an unknown e-mail and a disabled user, so that none can be told apart."""

    code = "invalid-credentials"
    text = "The e-mail or the password is wrong."


class PaymentNotVerified(AppError):
    """The gateway does not say that this transaction pays this payment."""

    code, status = "payment-not-verified", 402
    text = "The gateway does not confirm this payment."


class RefundDeclined(AppError):
    """The gateway refused it for good: nothing was returned. The one refusal that its key goes on answering with."""

    code, status = "refund-declined", 402
    text = "The gateway declined the refund; nothing was returned."


class Forbidden(AppError):
    code, status = "forbidden", 403
    text = "This is not yours to see or to change."


class NotFound(AppError):
    code, status = "not-found", 404
    text = "There is nothing here."


class ConsultationNotFound(NotFound):
    code = "consultation-not-found"
    text = "Consultation not found"


class PaymentNotFound(NotFound):
    code = "payment-not-found"
    text = "Payment not found"


class UserNotFound(NotFound):
    code = "user-not-found"
    text = "Nobody has that e-mail address"


class RefundNotFound(NotFound):
    code = "refund-not-found"
    text = "Refund not found"


class IdempotencyKeyNotFound(NotFound):
    """Nothing *so far*: the request may still be on its way. Send it again with the same key, never with a new one."""

    code = "idempotency-key-not-found"
    text = "Nothing is known under this key so far: send the same request again with the same key."


class Conflict(AppError):
    code, status = "conflict", 409
    text = "The request conflicts with what is there."


class ActivePaymentExists(Conflict):
    """The consultation already has a payment that is pending, processing, completed or partly refunded."""

    code = "active-payment-exists"
    text = "A payment for this consultation already exists; nothing more was charged."

    def __init__(
        self,
        *,
        payment_id: int | None = None,
        payment_status: str | None = None,
        consequence: str = "nothing more was charged.",
        headers: dict[str, str] | None = None,
    ) -> None:
        if payment_id is None or payment_status is None:  # the index said so, and did not say which
            super().__init__(headers=headers)
            return
        super().__init__(
            f"A payment for this consultation already exists and is {payment_status.replace('_', ' ')}; {consequence}",
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
        """For money of another payment, which had ended before it came."""
        consequence = "the money that came too late is kept on record, and staff return it."
        return cls(payment_id=payment_id, payment_status=payment_status, consequence=consequence)


class VersionConflict(Conflict):
    """``expected_version`` is not the payment's (read again first), or every attempt lost its race (try again)."""

    code = "version-conflict"
    text = "The payment was changed by somebody else at the same moment; please try again."

    @classmethod
    def stale_expectation(cls, *, expected_version: int, current_version: int) -> "VersionConflict":
        return cls(
            f"The payment is at version {current_version}, not {expected_version}: read it again first.",
            data={"current_version": current_version},
        )

    @classmethod
    def lost_every_race(cls) -> "VersionConflict":
        return cls(retryable=True, headers={"Retry-After": "1"})


class InvalidTransition(Conflict):
    code = "invalid-transition"
    text = "The payment's status does not allow this."

    def __init__(self, *, payment_status: str) -> None:
        super().__init__(
            f"The payment is {payment_status.replace('_', ' ')}, which does not allow this.",
            data={"status": payment_status},
        )


class TransactionAlreadyUsed(Conflict):
    code = "transaction-already-used"
    text = "This transaction_id already paid for another payment."


class UserExists(Conflict):
    code = "user-exists"
    text = "Somebody has that e-mail address already."


class ConsultationHasPayments(Conflict):
    code = "consultation-has-payments"
    text = "The consultation has payments: its patient stays, and its fee stays while one is active."


class LockTimeout(Conflict):
    """A configured lock was not had in time. Nothing was done; the same request may well succeed in a moment."""

    code = "lock-timeout"
    retryable = True
    text = "Another request for the same payment is still being worked on; please send the same request again."

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class PreconditionFailed(AppError):
    code, status = "precondition-failed", 412
    text = "If-Match does not name the payment's present version."

    def __init__(self, *, current_version: int) -> None:
        super().__init__(data={"current_version": current_version})


class UnsupportedMediaType(AppError):
    code, status = "unsupported-media-type", 415
    text = "Send the body as application/json."


class ValidationFailed(AppError):
    """The body, the query or a header has a value that cannot be meant; ``errors`` names each field."""

    code, status = "validation-failed", 422
    text = "The request has invalid values."

    def __init__(self, errors: dict[str, list[str]], message: str | None = None) -> None:
        super().__init__(message, errors=errors)


class RefundExceedsBalance(ValidationFailed):
    code = "refund-exceeds-balance"
    text = "That is more than is left to refund."

    def __init__(self, *, left: str) -> None:
        super().__init__({"amount": [f"No more than {left} is left to refund."]})


class IdempotencyKeyReused(ValidationFailed):
    code = "idempotency-key-reused"
    text = "This idempotency key was used for a different request; a new request needs a new key."

    def __init__(self, fields: list[str]) -> None:
        differs = "Differs from the request that this idempotency key was first used for."
        super().__init__({field: [differs] for field in fields})


class GatewayRefused(AppError):
    """The gateway understood us and would not open a session: its settings, or ours, need a look."""

    code, status = "gateway-refused", 502
    text = "The payment gateway refused to open a session; nothing was charged."


class Unavailable(AppError):
    """A fault on our side that passes; nothing was lost, and the same key may be sent again."""

    code, status = "unavailable", 503
    retryable = True
    text = "The service cannot answer at the moment; please send the same request again."

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


class DatabaseUnavailable(Unavailable):
    code = "database-unavailable"
    text = "The database cannot be reached at the moment; please send the same request again."


class DatabaseBusy(Unavailable):
    code = "database-busy"
    text = "The database is busy at the moment; please send the same request again."


class NotReady(Unavailable):
    """The migrations have not run, or the index that allows one active payment per consultation is gone."""

    code = "not-ready"
    text = "The service is not ready to take payments; please send the same request again later."


class GatewayUnavailable(Unavailable):
    """No answer from the gateway, and nothing changed on our side."""

    code = "gateway-unavailable"
    text = "The payment gateway does not answer at the moment; please send the same request again."
