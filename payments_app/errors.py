"""Everything that can go wrong for a caller, as classes that know their HTTP status; and how they are shown.

Answers are problem details (RFC 9457) as ``application/problem+json``. ``code`` is the last part of ``type``.
``retryable`` answers one question: may the same request, with the same idempotency key, succeed later?
"""

import logging
from http import HTTPStatus
from typing import Any, ClassVar

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from payments_app.logs import current_request_id

log = logging.getLogger(__name__)

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


class Conflict(AppError):
    code, status = "conflict", 409
    text = "The request conflicts with what is there."


class ActivePaymentExists(Conflict):
    """The consultation already has a payment that is pending, processing, completed or partly refunded."""

    code = "active-payment-exists"
    text = "A payment for this consultation already exists; nothing more was charged."

    def __init__(self, *, payment_id: int, payment_status: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(
            f"A payment for this consultation already exists and is {payment_status.replace('_', ' ')}; "
            "nothing more was charged.",
            data={
                "type": "existing",
                "payment_id": payment_id,
                "existing_payment_id": payment_id,
                "status": payment_status,
            },
            headers=headers,
        )


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

    def __init__(self, *, payment_status: str, wanted: str) -> None:
        super().__init__(
            f"A payment that is {payment_status.replace('_', ' ')} cannot become {wanted.replace('_', ' ')}.",
            data={"status": payment_status},
        )


class TransactionAlreadyUsed(Conflict):
    code = "transaction-already-used"
    text = "This transaction_id already paid for another payment."


class ConsultationHasPayments(Conflict):
    code = "consultation-has-payments"
    text = "The consultation has payments: its patient stays, and its fee stays while one is active."


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


class IdempotencyKeyReused(ValidationFailed):
    code = "idempotency-key-reused"
    text = "This idempotency key was used for a different request; a new request needs a new key."

    def __init__(self, fields: list[str]) -> None:
        differs = "Differs from the request that this idempotency key was first used for."
        super().__init__({field: [differs] for field in fields})


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
    text = "Too many requests want the same rows at the moment; please send the same request again."


class LastDefenceMissing(Unavailable):
    """The index that allows one active payment per consultation is gone: no money is taken without it."""

    code = "not-ready"
    text = "The service is not ready to take payments; please send the same request again later."


def problem_response(error: AppError) -> Response:
    """Render an error as problem details."""
    return _problem(
        code=error.code,
        status=error.status,
        detail=error.message,
        retryable=error.is_retryable,
        errors=error.errors,
        data=error.data,
        headers=error.headers,
    )


def init_app(app: Flask) -> None:
    """Register the one handler that answers for every error the app, Flask or a library raises."""
    app.register_error_handler(AppError, problem_response)
    app.register_error_handler(HTTPException, _http_exception_response)
    app.register_error_handler(Exception, _unexpected)


def _http_exception_response(error: HTTPException) -> Response:
    """What Flask and Werkzeug raise themselves: unknown routes, methods, over-long bodies."""
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:  # a redirect is no error
        return error.get_response()  # type: ignore[return-value]  # Werkzeug's class, which Flask accepts
    status = HTTPStatus(error.code)
    # Allow, Retry-After and their like belong to the error; the body and its type are ours.
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    return _problem(
        code=status.phrase.lower().replace(" ", "-"),
        status=error.code,
        detail=error.description or status.description,
        retryable=error.code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
        headers=headers,
    )


def _unexpected(error: Exception) -> Response:
    """A bug of ours. The caller learns the request id, the log learns the rest."""
    log.error("unexpected error, request %s", current_request_id(), exc_info=error)
    return _problem(
        code="internal-error",
        status=500,
        detail="Something went wrong on our side; the same request with the same key is safe to send again.",
        retryable=True,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _problem(
    *,
    code: str,
    status: int,
    detail: str,
    retryable: bool,
    errors: dict[str, list[str]] | None = None,
    data: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.path,
        "message": detail,
        "retryable": retryable,
        "request_id": current_request_id(),
    }
    if errors is not None:
        body["errors"] = errors
    if data is not None:
        body["data"] = data
    return Response(json.dumps(body), status=status, headers=headers, mimetype="application/problem+json")
