"""Title and explanation of every problem that this service, or nginx in front of it, responds with.

The problem pages, ``docs/errors.md`` and the ``title`` of each response are made from it. For developers of clients, so
in English; the texts that people read are in ``errors.py`` and translated.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import NotRequired, TypedDict, Unpack

from payments_app import errors
from payments_app.errors import AppError
from payments_app.i18n.messages import N_


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem type (RFC 9457).

    ``retryable``: may the same request with the same key succeed later? None: each response says it for itself.
    ``text``: the ``detail`` of a response that has nothing more exact to say.
    ``action`` is for the client's developer, ``people`` for what the person in front of it should do.
    ``example_path``: a path that responds with it; None if no path of the API does.
    """

    code: str
    title: str
    status: int
    retryable: bool | None
    text: str
    meaning: str
    when: str
    action: str
    people: str | None = None
    example_path: str | None = "/api/v1/payments/41"

    @property
    def type(self) -> str:
        """The URI reference that identifies it; also the path of its page."""
        return f"/problems/{self.code}"


def title_of(code: str, status: int) -> str:
    """The problem's title; for an HTTP error that is not in the catalogue, the phrase of its status."""
    problem = CATALOG.get(code)
    return problem.title if problem is not None else HTTPStatus(status).phrase


class _Explanation(TypedDict):
    """The members of ``Problem`` that only the catalogue knows."""

    meaning: str
    when: str
    action: str
    people: NotRequired[str]
    example_path: NotRequired[str | None]


def _raised(error: type[AppError], title: str, *, varies: bool = False, **explanation: Unpack[_Explanation]) -> Problem:
    """A problem of ``errors.py``; with ``varies`` each response says itself whether it is retryable."""
    retryable = None if varies else error.retryable
    return Problem(
        code=error.code, title=title, status=error.status, retryable=retryable, text=error.text, **explanation
    )


def _http(
    status: HTTPStatus,
    code: str,
    title: str,
    *,
    text: str,
    retryable: bool = False,
    **explanation: Unpack[_Explanation],
) -> Problem:
    """A problem that no class of ``errors.py`` stands for: Flask, nginx or an unexpected exception causes it."""
    return Problem(code=code, title=title, status=status.value, retryable=retryable, text=text, **explanation)


_PROBLEMS = (
    # 400
    _http(
        HTTPStatus.BAD_REQUEST,
        "bad-request",
        "Bad request",
        text=N_("The request cannot be read; check its syntax."),
        meaning="The request is not valid HTTP. Nothing was done.",
        when="A header is malformed or too large, or an HTTPS port gets plain HTTP.",
        action="Correct the client; the same request fails again.",
        example_path=None,
    ),
    _raised(
        errors.MalformedRequest,
        "Malformed request",
        meaning="The body could not be read. Nothing was done.",
        when="The body is not JSON or not UTF-8, names a member twice, nests deeper than 32 levels, or has NaN.",
        action="Send one JSON object in UTF-8. `detail` names what is wrong and, if known, the position.",
        example_path="/api/v1/payments",
    ),
    _raised(
        errors.WebhookNotGenuine,
        "Webhook not genuine",
        meaning="The webhook was not accepted, because its signature proves nothing. No event was stored.",
        when="The signature is missing, made with another secret or more than five minutes old; no secret is "
        "configured; or the signed body is not an event.",
        action="Compare the signing secret of the service with the gateway's, and the clocks of both. The gateway "
        "sends the event again by itself.",
        example_path="/api/v1/webhooks/stripe",
    ),
    _raised(
        errors.WebhookOfOtherMode,
        "Webhook of the other mode",
        meaning="The webhook was not accepted: it is about test money and the service has a live key, or the reverse. "
        "No event was stored.",
        when="`livemode` of the event, or of the object in it, is not the mode of the gateway's API key.",
        action="Send test events to a service with a test key, and live events to a service with a live key: each has "
        "a webhook address and a signing secret of its own.",
        example_path="/api/v1/webhooks/stripe",
    ),
    # 401
    _raised(
        errors.NotAuthenticated,
        "Not authenticated",
        meaning="The request has no valid bearer token. Nothing was done.",
        when="The token is missing, malformed, expired or revoked, or its user was disabled.",
        action="Log in at `/api/login` and send the same request with the new token and the same idempotency key.",
        people="Sign in again; nothing is lost.",
        example_path="/api/v1/me",
    ),
    _raised(
        errors.InvalidCredentials,
        "Invalid credentials",
        meaning="The login failed. The response does not say whether the e-mail or the password was wrong.",
        when="The password is wrong, no user has this e-mail address, or the user is disabled.",
        action="Ask the person for both again. Do not repeat the request by program: failed logins are limited.",
        people="Check the e-mail address and the password. If both are right, ask the clinic.",
        example_path="/api/login",
    ),
    # 402
    _raised(
        errors.PaymentNotVerified,
        "Payment not verified",
        meaning="The payment was not confirmed, because the gateway does not say that this transaction pays it.",
        when="The transaction is unknown, not paid yet, of another amount or currency, or belongs to another payment.",
        action="Show `detail`, which has the gateway's reason. If the person is still paying, confirm again later.",
        people="If you have paid, do not pay again; ask the clinic.",
        example_path="/api/v1/payments/41/confirm",
    ),
    _raised(
        errors.RefundDeclined,
        "Refund declined",
        meaning="The refund failed for good, and no money was returned. The same key always gets this response.",
        when="The gateway declined the refund, another admin rejected it, nobody approved it in time, or staff did not "
        "send the money; `data.reason` has the reason.",
        action="Remove the reason, then send a new refund with a new idempotency key.",
        people="The money was not returned; look at the reason before you try again.",
        example_path="/api/v1/payments/41/refund",
    ),
    # 403
    _raised(
        errors.Forbidden,
        "Forbidden",
        meaning="The caller is known, but may not do this. Nothing was done.",
        when="The payment or consultation is another patient's, the caller's role may not use this endpoint, or nginx "
        "closes the path to this network.",
        action="Do not repeat it. Use a token of a user with the right role.",
        people="Sign in as the person the consultation is for, or ask the clinic.",
    ),
    _raised(
        errors.ScopeMissing,
        "Scope missing",
        meaning="The API key is valid, and was not given the scope that this request needs. Nothing was done. "
        "`data.scope` names the scope.",
        when="The key was made for something else; each endpoint needs one scope.",
        action="Make one with that scope: `flask keys create NAME --user EMAIL --scope SCOPE`. Keys keep their scopes.",
    ),
    _raised(
        errors.LoginRequired,
        "Login required",
        meaning="The API key is valid, and no API key may be used for this, whatever its scopes. Nothing was done.",
        when="A program approves or rejects a refund, or creates or cancels a payment, with an API key.",
        action="Do not repeat it. A person logs in and does this.",
    ),
    _raised(
        errors.SecondPersonNeeded,
        "Second person needed",
        meaning="Nothing was changed: the user who requested a refund can neither approve nor reject it.",
        when="The caller requested the refund, by login or by an API key.",
        action="Ask another admin to log in and decide.",
        people="Ask another admin to approve or reject this refund.",
        example_path="/api/v1/refunds/3/approve",
    ),
    _raised(
        errors.HttpsRequired,
        "HTTPS required",
        meaning="The request came over plain HTTP and was not read.",
        when="In production, the URL begins with `http://`, or the proxy in front does not say that it uses HTTPS.",
        action="Use `https://`. Others may have read the token or password that was sent: treat it as stolen.",
    ),
    # 404
    _raised(
        errors.NotFound,
        "Not found",
        meaning="No resource has this path.",
        when="The path is misspelled, or an id in it is not a number from 1 to 2^63-1.",
        action="Compare the path with the API document at `/docs`.",
        example_path="/nothing",
    ),
    _raised(
        errors.ConsultationNotFound,
        "Consultation not found",
        meaning="No consultation has this id. Nothing was done.",
        when="The booking system has not registered the consultation yet, or the id is wrong.",
        action="Register the consultation with PUT, or correct `consultation_id`.",
        people="Ask the clinic for the number of your consultation.",
        example_path="/api/v1/payments",
    ),
    _raised(
        errors.PaymentNotFound,
        "Payment not found",
        meaning="No payment has this id.",
        when="The id is wrong, or the payment was deleted.",
        action="List the payments of the caller to find the id.",
    ),
    _raised(
        errors.UserNotFound,
        "User not found",
        meaning="No user has this e-mail address.",
        when="A command names a user who does not exist. Only commands raise this.",
        action="Correct the e-mail address, or create the user with `users create`.",
        example_path=None,
    ),
    _raised(
        errors.RefundNotFound,
        "Refund not found",
        meaning="No refund has this id.",
        when="A request or a command names a refund that does not exist.",
        action="Find the id with `GET /refunds` or `refunds list`.",
        example_path=None,
    ),
    _raised(
        errors.IdempotencyKeyNotFound,
        "Idempotency key not found",
        meaning="No result is stored under this key yet. The first request may still be running.",
        when="The request never arrived, has not finished, or belongs to another user.",
        action="Send the same request again with the same key. A new key would make it another request.",
        example_path="/api/v1/idempotency-keys/my-key",
    ),
    # 405
    _http(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Method not allowed",
        text=N_("Method not allowed."),
        meaning="The path exists, but not with this method. Nothing was done.",
        when="For example, DELETE is sent to a payment.",
        action="Use a method that the `Allow` header lists.",
    ),
    # 409
    _raised(
        errors.Conflict,
        "Conflict",
        meaning="The request does not fit the current state. Nothing was done.",
        when="No more exact problem applies; every conflict that is known today has a type of its own.",
        action="Read the resource again, then decide.",
    ),
    _raised(
        errors.ActivePaymentExists,
        "Active payment exists",
        meaning="The consultation already has a payment. Nothing more was charged; `data` says which payment it is and "
        "in what status.",
        when="Another click, another tab or another key tries to pay a consultation that is being paid or is paid; or "
        "money of an ended payment arrives when the consultation has a new one, and staff return it.",
        action="This is not a failed payment: show the existing one (`data.payment_id`, `data.status`).",
        people="You were not charged again; continue with the existing payment.",
        example_path="/api/v1/payments",
    ),
    _raised(
        errors.VersionConflict,
        "Version conflict",
        varies=True,
        meaning="The payment was changed by another request. This request changed nothing.",
        when="`expected_version` is not the payment's version (`data.current_version` is); or the request lost three "
        "races in a row.",
        action="If `retryable` is true, send the same request with the same key again. If it is false, read the "
        "payment again and decide anew.",
        example_path="/api/v1/payments/41/cancel",
    ),
    _raised(
        errors.InvalidTransition,
        "Invalid transition",
        meaning="The payment is in a status (`data.status`) in which this is not possible.",
        when="For example, a cancelled payment is confirmed, or a pending one is refunded. A cancel also gets this if "
        "the gateway had the money already: the payment is completed then.",
        action="Read the payment again and offer what its status allows.",
        example_path="/api/v1/payments/41/cancel",
    ),
    _raised(
        errors.TransactionAlreadyUsed,
        "Transaction already used",
        meaning="The payment was not confirmed, because this transaction has paid another payment.",
        when="The same `transaction_id`, in any spelling, is used for two payments.",
        action="Send the `transaction_id` of this payment.",
        people="Look at the reference again: each transfer pays one payment.",
        example_path="/api/v1/payments/41/confirm",
    ),
    _raised(
        errors.PaymentDisputed,
        "Payment disputed",
        meaning="No refund was made or sent. The patient's bank has taken the payment's money back, or may do so.",
        when="A dispute of the payment is open or lost. An inquiry of the bank does not count.",
        action="Show the dispute (`GET /disputes?payment_id=`). Refund once it is won; a lost one stays as it is.",
        people="The bank decides who gets the money. Answer it at the gateway; do not send the money yourself as well.",
        example_path="/api/v1/payments/41/refund",
    ),
    _raised(
        errors.WebhookEndpointDisabled,
        "Webhook endpoint disabled",
        meaning="No ping was made, or the delivery is not sent again.",
        when="The endpoint was disabled by hand, answered 410, or took nothing for five days.",
        action="Enable the endpoint (`PATCH` with `is_enabled`), then send the request again.",
        example_path="/api/v1/webhook-endpoints/3/ping",
    ),
    _raised(
        errors.RefundNotRequested,
        "Refund not requested",
        meaning="Nothing was changed: the refund does not wait for approval. `data.status` has its status.",
        when="It was approved, rejected or lapsed before, or it needed no approval.",
        action="Show the refund (`GET /refunds/{id}`).",
        people="Somebody has decided about this refund before. Look at it again.",
        example_path="/api/v1/refunds/3/approve",
    ),
    _raised(
        errors.RefundRequestLapsed,
        "Refund request lapsed",
        meaning="Nothing was sent: nobody approved the refund within 7 days.",
        when="An admin approves it after that time. `payments expire` marks it failed and frees its amount.",
        action="Request the refund again, with a new idempotency key.",
        people="Request the refund again.",
        example_path="/api/v1/refunds/3/approve",
    ),
    _raised(
        errors.RefundNotToBeSent,
        "Refund not to be sent",
        meaning="Nothing was changed: staff have no money to send for this refund. `data.status` has its status.",
        when="The gateway sends the money, the refund waits for approval, or it has failed.",
        action="Show the refund (`GET /refunds/{id}`). If money was sent for a failed one, call it back.",
        people="Do not send money for this refund. If you have, ask the clinic's administrator.",
        example_path="/api/v1/refunds/3/settle",
    ),
    _raised(
        errors.RefundAlreadySent,
        "Refund already sent",
        meaning="Nothing was changed: the money of this refund was sent by another transfer, which `data.reference` "
        "names.",
        when="A refund by hand is settled a second time, with another reference.",
        action="Compare both references. If both transfers were made, call one of them back.",
        people="Check that the money was not sent twice.",
        example_path="/api/v1/refunds/3/settle",
    ),
    _raised(
        errors.TransferAlreadyUsed,
        "Transfer already used",
        meaning="Nothing was changed: this transfer has returned the money of another refund of the same method.",
        when="A refund by hand is settled with the reference of another one, in any spelling.",
        action="Send the reference of this refund's own transfer.",
        people="Check the reference: each refund has a transfer of its own.",
        example_path="/api/v1/refunds/3/settle",
    ),
    _raised(
        errors.RefundRepeated,
        "Refund repeated",
        meaning="No second refund was made. A refund of the same amount of the same payment was requested a short time "
        "ago; `data.refund_id` names it.",
        when="A refund without an idempotency key names the amount of a refund of the same payment that was requested "
        "within `REFUND_REPEAT_WINDOW` (10 minutes) and has not failed.",
        action="Show the first refund and ask. If a second one is meant, send `allow_repeat`; better, send a key with "
        "every refund.",
        people="Look at the first refund before you make a second one.",
        example_path="/api/v1/payments/41/refund",
    ),
    _raised(
        errors.RefundableChanged,
        "Refundable amount changed",
        meaning="No refund was made, because the amount that can still be refunded is not `expected_refundable`. "
        "`data.refundable` has it.",
        when="Another refund was made after the caller read the payment.",
        action="Read the payment again and show the amount to the person before the next attempt.",
        people="Check the amount again: another refund was made in the meantime.",
        example_path="/api/v1/payments/41/refund",
    ),
    _raised(
        errors.UserExists,
        "User exists",
        meaning="No user was created: another one has this e-mail address.",
        when="`users create` names an address that is taken. Only commands raise this.",
        action="Use another address.",
        example_path=None,
    ),
    _raised(
        errors.ConsultationHasPayments,
        "Consultation has payments",
        meaning="The consultation was not changed.",
        when="The booking system changes the patient of a consultation with a payment, or the fee of one with an "
        "active payment.",
        action="Leave patient and fee as they are, or register a new consultation.",
        example_path="/api/v1/consultations/5",
    ),
    _raised(
        errors.ConsultationCurrency,
        "Consultation in another currency",
        meaning="No payment was made, because the fee is in another currency than payments are.",
        when="`PAYMENT_CURRENCY` was changed after the consultation was registered. `data` has both currencies.",
        action="The booking system registers the consultation again, with its fee in the new currency.",
        people="You cannot pay this consultation yet; ask the clinic.",
        example_path="/api/v1/payments",
    ),
    _raised(
        errors.ConsultationClosed,
        "Consultation closed",
        meaning="The consultation is closed. No payment was made, and nothing of the consultation changed.",
        when="The booking system or staff have closed it, and somebody pays it, changes it or asks for a link; or "
        "money of an ended payment arrives afterwards, and staff return it.",
        action="Show that it cannot be paid. If it is to take place after all, register a new consultation.",
        people="You cannot pay this consultation any more; ask the clinic.",
        example_path="/api/v1/payments",
    ),
    _raised(
        errors.PaymentLinksOff,
        "Payment links are off",
        meaning="No payment link was made.",
        when="The service runs in production without its setting `PUBLIC_URL`, with which links begin.",
        action="The operator sets `PUBLIC_URL` to the address by which patients reach the service.",
        example_path="/api/v1/consultations/5/links",
    ),
    _raised(
        errors.ReferenceFixed,
        "Reference fixed",
        meaning="The consultation was not changed: it has another reference (`data.reference`), which stays.",
        when="The booking system sends another `reference` for a consultation that has one.",
        action="Send the reference that it has, or none.",
        example_path="/api/v1/consultations/5",
    ),
    _raised(
        errors.ReferenceTaken,
        "Reference taken",
        meaning="The consultation was not changed: another one has this reference.",
        when="The booking system uses one `reference` for two consultations.",
        action="Find the other one with `GET /api/v1/consultations?reference=`, and send this one's own.",
        example_path="/api/v1/consultations/5",
    ),
    _raised(
        errors.LockTimeout,
        "Lock timeout",
        meaning="Others hold the payment or its consultation for too long. This request changed nothing.",
        when="A row stays locked for more than 0.5 s, and other requests wait for it. With `PAYMENT_LOCKING` `redis` "
        "or `hybrid` also: the lock in Redis is not free in time.",
        action="Wait as `Retry-After` says, then send the same request with the same key.",
        example_path="/api/v1/payments",
    ),
    # 410
    _raised(
        errors.CursorLost,
        "Cursor lost",
        meaning="Another event, or none, has the place in the feed that the cursor names.",
        when="The database was restored from a backup, and events of after the backup are gone.",
        action="Read the feed again from its beginning, without `after`, and compare what you have with what it says.",
        example_path="/api/v1/events",
    ),
    # 412
    _raised(
        errors.PreconditionFailed,
        "Precondition failed",
        meaning="The payment has changed since the caller read it. This request changed nothing.",
        when="`If-Match` is not the payment's ETag, or is not a version. `data.current_version` has the version.",
        action="Read the payment again, then decide with the new ETag.",
        example_path="/api/v1/payments/41/confirm",
    ),
    # 413 to 416
    _http(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "request-entity-too-large",
        "Request too large",
        text=N_("The request is too large; send a smaller one."),
        meaning="The body was not read. Nothing was done.",
        when="The body has more than 64 KiB.",
        action="Send a body of at most 64 KiB.",
        example_path="/api/v1/payments",
    ),
    _http(
        HTTPStatus.REQUEST_URI_TOO_LONG,
        "request-uri-too-large",
        "Address too long",
        text="The address is too long; shorten it.",
        meaning="The path and query were not read. Nothing was done.",
        when="nginx gets a request line of more than 8 KiB.",
        action="Shorten the query.",
        example_path=None,
    ),
    _raised(
        errors.UnsupportedMediaType,
        "Unsupported media type",
        meaning="The body was not read. Nothing was done.",
        when="`Content-Type` is missing or is not `application/json`. Login takes a form too.",
        action="Send `Content-Type: application/json`.",
        example_path="/api/v1/payments",
    ),
    _http(
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        "requested-range-not-satisfiable",
        "Range not satisfiable",
        text=N_("The file does not have the requested range; request the whole file."),
        meaning="The file has no such bytes.",
        when="A request for a script or style sheet has a `Range` beyond its end.",
        action="Request the file without `Range`.",
        example_path="/docs/page/docs.css",
    ),
    # 422
    _raised(
        errors.ValidationFailed,
        "Validation failed",
        meaning="The request was read, but some values are not allowed. Nothing was done.",
        when="A field of the body or query, or a header, is unknown, missing, of the wrong type or out of range.",
        action="`errors` lists the texts for each field. Show them beside the fields; send the request again with the "
        "same key.",
        people="Correct the fields that are named.",
        example_path="/api/v1/payments",
    ),
    _raised(
        errors.RefundExceedsBalance,
        "Refund exceeds balance",
        meaning="No refund was made: the amount is more than can still be refunded.",
        when="Earlier refunds, open ones included, leave less than `amount`.",
        action="Send the amount that `errors.amount` names, or less; without `amount`, all that is left is refunded.",
        people="Choose a smaller amount.",
        example_path="/api/v1/payments/41/refund",
    ),
    _raised(
        errors.NotRefundable,
        "Not refundable",
        meaning="No refund was made, and nothing was sent to the gateway.",
        when="The gateway returns no money that was paid by this method, or only the whole of it.",
        action="If `detail` says so, refund the full amount. Otherwise return the money another way, and note it.",
        people="Ask the clinic to return the money another way.",
        example_path="/api/v1/payments/41/refund",
    ),
    _raised(
        errors.IdempotencyKeyReused,
        "Idempotency key reused",
        meaning="Nothing was done: this key belongs to an earlier request with other values.",
        when="A client takes the same key for two different requests. `errors` names the fields that differ.",
        action="To repeat the first request, send it unchanged. For a new request, make a new key.",
        example_path="/api/v1/payments",
    ),
    # 429
    _http(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too-many-requests",
        "Too many requests",
        retryable=True,
        text=N_("Too many requests; please wait a moment before you send this again."),
        meaning="A rate limit was reached. Nothing was done.",
        when="A user makes too many payments, an address fails too many logins, or a network floods nginx.",
        action="Wait as `Retry-After` says, then send the same request with the same key. Replays are not counted.",
        people="Wait a minute and try again.",
        example_path="/api/v1/payments",
    ),
    # 500
    _http(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal-error",
        "Internal error",
        retryable=True,
        text=N_("The service failed; it is safe to send the same request with the same key again."),
        meaning="A bug, or a fault that the service does not know. The request may have had its effect.",
        when="Never expected. The log has the cause under the `request_id` of the response.",
        action="Send the same request with the same key again. If that fails too, report the `request_id`.",
        people="Try again; you will not be charged twice.",
        example_path="/api/v1/payments",
    ),
    _http(
        HTTPStatus.NOT_IMPLEMENTED,
        "not-implemented",
        "Not implemented",
        text="The request cannot be read; check its syntax.",
        meaning="nginx does not support this kind of request. Nothing was done.",
        when="The method or the transfer encoding is unknown to nginx.",
        action="Correct the client; the same request fails again.",
        example_path=None,
    ),
    # 502
    _http(
        HTTPStatus.BAD_GATEWAY,
        "bad-gateway",
        "Bad gateway",
        retryable=True,
        text="The response was lost; send the same request with the same idempotency key again.",
        meaning="The connection between nginx and the service broke. The request may have had its effect.",
        when="A worker was killed or restarted during the request.",
        action="Send the same request with the same key again: it gets the first result if there is one.",
        people="Try again; you will not be charged twice.",
        example_path=None,
    ),
    _raised(
        errors.GatewayRefused,
        "Gateway refused",
        meaning="No session was opened, and nothing was charged.",
        when="The gateway understood the request and refused it: its settings, or the service's, are wrong.",
        action="Tell the operator of the service; the same request fails until the settings are corrected.",
        people="Choose another payment method, or ask the clinic.",
        example_path="/api/v1/payments/41/checkout",
    ),
    # 503
    _http(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "service-unavailable",
        "Service unavailable",
        retryable=True,
        text="The service is not available; please send this again in a moment.",
        meaning="nginx cannot pass requests to the service.",
        when="nginx itself is out of resources.",
        action="Wait as `Retry-After` says, then send the same request with the same key.",
        people="Try again in a moment; you will not be charged twice.",
        example_path=None,
    ),
    _raised(
        errors.Unavailable,
        "Unavailable",
        meaning="A fault that passes. No data was lost.",
        when="No more exact problem applies; every fault that is known today has a type of its own.",
        action="Wait as `Retry-After` says, then send the same request with the same key.",
        people="Try again in a moment; you will not be charged twice.",
    ),
    _raised(
        errors.DatabaseUnavailable,
        "Database unavailable",
        meaning="The database does not respond. If the connection broke during the request, the request may have had "
        "its effect.",
        when="The database is down, restarting or failing over.",
        action="Wait as `Retry-After` says, then send the same request with the same key.",
        people="Try again in a moment; you will not be charged twice.",
    ),
    _raised(
        errors.DatabaseBusy,
        "Database busy",
        meaning="The request waited too long for the database, and its change was rolled back.",
        when="Too many requests wait for the same rows or for a connection.",
        action="Wait as `Retry-After` says, then send the same request with the same key.",
        people="Try again in a moment; you will not be charged twice.",
    ),
    _raised(
        errors.Overloaded,
        "Overloaded",
        meaning="The service did not begin this request.",
        when="The request waited longer than 15 s for a free thread, because many slow requests are running.",
        action="Wait as `Retry-After` says, then send the same request with the same key.",
        people="Try again in a moment; you will not be charged twice.",
        example_path="/api/v1/payments",
    ),
    _raised(
        errors.NotReady,
        "Not ready",
        meaning="No payment was made, because a protection against double charges is missing.",
        when="The database is unreachable or not migrated, its indexes and checks are missing or altered, or its role "
        "lacks a privilege. "
        "`data.failed` names the checks.",
        action="Wait, then send the same request with the same key. The operator runs `flask check`.",
        people="Try again later; nothing was charged.",
        example_path="/api/v1/payments",
    ),
    _raised(
        errors.GatewayUnavailable,
        "Gateway unavailable",
        meaning="The payment gateway did not respond, and the payment was not changed.",
        when="The gateway is down or slow, or is not configured any more. If it did not respond to the last calls, it "
        "is not called again for some seconds.",
        action="Wait as `Retry-After` says, then send the same request with the same key.",
        people="Try again in a moment; you will not be charged twice.",
        example_path="/api/v1/payments/41/confirm",
    ),
    _raised(
        errors.GatewayBusy,
        "Gateway busy",
        meaning="The request was refused at once: nothing was sent to the gateway, and nothing was changed.",
        when="Half of a process's threads wait for payment gateways already: a gateway is slow, or many people pay at "
        "the same moment.",
        action="Wait as `Retry-After` says, then send the same request with the same key.",
        people="Try again in a moment; you will not be charged twice.",
        example_path="/api/v1/payments/41/checkout",
    ),
    # 504, 505
    _http(
        HTTPStatus.GATEWAY_TIMEOUT,
        "gateway-timeout",
        "Gateway timeout",
        retryable=True,
        text="The response took too long; send the same request with the same idempotency key again.",
        meaning="nginx did not get a response in time. The request may have had its effect.",
        when="The service took more than 60 s.",
        action="Send the same request with the same key again: it gets the first result if there is one.",
        people="Try again; you will not be charged twice.",
        example_path=None,
    ),
    _http(
        HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
        "http-version-not-supported",
        "HTTP version not supported",
        text="The request cannot be read; check its syntax.",
        meaning="nginx does not support this version of HTTP. Nothing was done.",
        when="The request line names a version other than HTTP/1.0 or HTTP/1.1.",
        action="Use HTTP/1.1.",
        example_path=None,
    ),
)

# Every problem by its code, in the order of the statuses.
CATALOG: dict[str, Problem] = {problem.code: problem for problem in _PROBLEMS}
