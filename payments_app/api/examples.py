"""Examples for the OpenAPI document and the problem pages. Errors are built from the error classes themselves, so texts
and data are those of real responses.
"""

from decimal import Decimal
from typing import Any

from payments_app.api.problem_catalog import CATALOG, Problem, title_of
from payments_app.errors import (
    ActivePaymentExists,
    AppError,
    ConsultationClosed,
    ConsultationCurrency,
    ConsultationHasPayments,
    GatewayBusy,
    GatewayRefused,
    GatewayUnavailable,
    IdempotencyKeyReused,
    InvalidTransition,
    LockTimeout,
    NotReady,
    PaymentDisputed,
    PaymentLinksOff,
    PaymentNotVerified,
    PreconditionFailed,
    ReferenceFixed,
    ReferenceTaken,
    RefundableChanged,
    RefundAlreadySent,
    RefundDeclined,
    RefundExceedsBalance,
    RefundNotRequested,
    RefundNotToBeSent,
    RefundRepeated,
    RefundRequestLapsed,
    SecondPersonNeeded,
    TransactionAlreadyUsed,
    TransferAlreadyUsed,
    ValidationFailed,
    VersionConflict,
    WebhookEndpointDisabled,
)

# OpenAPI Example Objects by name, for one media type.
Examples = dict[str, dict[str, Any]]

# Request bodies that work as they are. Bodies that Swagger UI would generate from the schemas have random keys and
# wrong versions, and are refused. The idempotency key goes into the header.
CREATE_BODY = {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}
CONFIRM_BODY = {"transaction_id": "TXN-123456789"}
SETTLE_BODY = {"reference": "GC-778-221"}
REJECT_BODY = {"reason": "The patient has agreed to another date"}
REFUND_BODY = {"amount": 1500, "reason": "The consultation was cut short"}
PUT_CONSULTATION_BODY = {
    "patient": {"email": "patient@test.com", "name": "Maria Santos", "language": "en"},
    "fee": 5000,
    "description": "Consultation with Dr Reyes",
    "starts_at": "2026-03-16T10:00:00+08:00",
    "reference": "BK-77",
}
LINK_BODY = {"expires_in": 604800}
EXCHANGE_BODY = {"token": "qIw3cJ2n8Uq0mY8oXH1vV8xJmM5uC0m2cZl0oT7rK9E"}  # nosec B105  # of no link
WEBHOOK_ENDPOINT_BODY = {
    "url": "https://booking.example.org/webhooks/payments",
    "types": ["payment.completed", "refund.succeeded"],
    "description": "The booking system",
}
PATCH_WEBHOOK_ENDPOINT_BODY = {"is_enabled": False}
ROTATE_SECRET_BODY = {"overlap": 86400}
EMPTY_BODY: dict[str, Any] = {}

_REQUEST_ID = "0f8c2a54d3a74a5c9f0b6de5f1f0a7c1"
_TIMESTAMP = "2026-03-14T09:26:53.589793Z"

_PAYMENT = {
    "id": 41,
    "user_id": 7,
    "consultation_id": 5,
    "amount": 5000,
    "currency": "PHP",
    "payment_method": "stripe",
    "gateway": "sandbox",
    "status": "pending",
    "transaction_id": None,
    "receipt_url": None,
    "refunded_amount": 0,
    "needs_review": False,
    "version": 0,
    "created_at": _TIMESTAMP,
    "updated_at": _TIMESTAMP,
    "completed_at": None,
}

CREATED: Examples = {
    "new": {
        "value": {
            "data": {
                "type": "new",
                "payment_id": 41,
                "payment": _PAYMENT,
                "invoice": {
                    "id": 41,
                    "payment_id": 41,
                    "invoice_number": "INV-20260314092653-41",
                    "amount": 5000,
                    "currency": "PHP",
                    "status": "pending",
                    "issued_at": _TIMESTAMP,
                    "paid_at": None,
                },
            },
            "message": "Payment created successfully",
        }
    }
}


CLIENT_SECRET = "pi_3MtwBwLkdIwHu7ix28a3tqPa_secret_YrKJUKribcBjcG8HVhfZluoGH"  # noqa: S105  # nosec B105  # opens nothing

CHECKOUT: Examples = {
    "on-the-gateways-page": {
        "value": {
            "data": {
                "gateway": "stripe",
                "reference": "cs_test_a1B2c3D4",
                "expires_at": "2026-11-22T09:33:00Z",
                "redirect_url": "https://checkout.stripe.com/c/pay/cs_test_a1B2c3D4",
                "payment": {**_PAYMENT, "gateway": "stripe"},
            },
            "message": "OK",
        }
    },
    "on-your-own-form": {
        "value": {
            "data": {
                "gateway": "stripe",
                "reference": "pi_3MtwBwLkdIwHu7ix28a3tqPa",
                "expires_at": "2026-11-22T09:30:00Z",
                "client_secret": CLIENT_SECRET,
                "payment": {**_PAYMENT, "gateway": "stripe"},
            },
            "message": "OK",
        }
    },
    "by-hand": {
        "value": {
            "data": {
                "gateway": "manual",
                "reference": "manual-41",
                "expires_at": "2026-11-29T09:00:00Z",
                "instructions": "Transfer the amount to the clinic's bank account."
                " Put reference 41 in the transfer's message.",
                "payment": {**_PAYMENT, "gateway": "manual", "payment_method": "bank_transfer"},
            },
            "message": "OK",
        }
    },
}


def _refusals(instance: str, errors: dict[str, AppError]) -> dict[int, Examples]:
    """Error responses to a request to ``instance``, by status."""
    shown: dict[int, Examples] = {}
    for name, error in errors.items():
        shown.setdefault(error.status, {})[name] = {"value": _problem(instance, error)}
    return shown


def _problem(instance: str, error: AppError) -> dict[str, Any]:
    problem: dict[str, Any] = {
        "type": f"/problems/{error.code}",
        "title": title_of(error.code, error.status),
        "status": error.status,
        "detail": error.message,
        "instance": instance,
        "message": error.message,
        "retryable": error.is_retryable,
        "request_id": _REQUEST_ID,
    }
    if error.errors is not None:
        problem["errors"] = error.errors
    if error.data is not None:
        problem["data"] = error.data
    return problem


# Two situations with the same text: ``retryable`` and ``data`` differ.
_VERSION_CONFLICTS = {
    "version-conflict": VersionConflict.stale_expectation(expected_version=0, current_version=1),
    "version-conflict-lost-race": VersionConflict.lost_every_race(),
}

# Of operations that call the payment's gateway.
_NO_ANSWER: dict[str, AppError] = {"gateway-unavailable": GatewayUnavailable(), "gateway-busy": GatewayBusy()}

CREATE = _refusals(
    "/api/v1/payments",
    {
        "active-payment-exists": ActivePaymentExists(payment_id=41, payment_status="pending"),
        "consultation-closed": ConsultationClosed(),
        "consultation-currency": ConsultationCurrency(of_consultation="PHP", of_payments="USD"),
        "lock-timeout": LockTimeout(),
        "validation-failed": ValidationFailed({"amount": ["Must be from 1000.00 to 10000000.00."]}),
        "idempotency-key-reused": IdempotencyKeyReused(["amount"]),
        "not-ready": NotReady(failed=["index"]),
    },
)

CONFIRM = _refusals(
    "/api/v1/payments/41/confirm",
    {
        **_VERSION_CONFLICTS,
        "payment-not-verified": PaymentNotVerified("The gateway says that it is open, not paid."),
        **_NO_ANSWER,
        "invalid-transition": InvalidTransition(payment_status="cancelled"),
        "transaction-already-used": TransactionAlreadyUsed(),
        # Late money for a payment that failed or expired, and whose consultation has another active payment: the money
        # is recorded, and ``needs_review`` is set so that staff return it.
        "active-payment-exists": ActivePaymentExists.instead_of_late_money(payment_id=42, payment_status="pending"),
        "consultation-closed": ConsultationClosed.to_late_money(),
        "lock-timeout": LockTimeout(),
        "precondition-failed": PreconditionFailed(current_version=1),
        "idempotency-key-reused": IdempotencyKeyReused(["transaction_id"]),
    },
)

CANCEL = _refusals(
    "/api/v1/payments/41/cancel",
    {
        **_VERSION_CONFLICTS,
        "invalid-transition": InvalidTransition(payment_status="completed"),
        "lock-timeout": LockTimeout(),
        "precondition-failed": PreconditionFailed(current_version=1),
        **_NO_ANSWER,
    },
)

REFUSED_CHECKOUT = _refusals(
    "/api/v1/payments/41/checkout",
    {
        "invalid-transition": InvalidTransition(payment_status="completed"),
        "gateway-refused": GatewayRefused(),
        **_NO_ANSWER,
    },
)

REFUND = _refusals(
    "/api/v1/payments/41/refund",
    {
        **_VERSION_CONFLICTS,
        "refund-declined": RefundDeclined(data={"refund_id": 3, "reason": "Charge ch_1 has already been refunded."}),
        "invalid-transition": InvalidTransition(payment_status="pending"),
        "payment-disputed": PaymentDisputed(),
        "refund-repeated": RefundRepeated(refund_id=3, amount=Decimal("1500.00"), currency="PHP"),
        "refundable-changed": RefundableChanged(left=Decimal("3500.50"), currency="PHP", as_number=3500.5),
        "lock-timeout": LockTimeout(),
        "precondition-failed": PreconditionFailed(current_version=1),
        "refund-exceeds-balance": RefundExceedsBalance(left=Decimal("3500.00"), currency="PHP"),
        "idempotency-key-reused": IdempotencyKeyReused(["amount"]),
        **_NO_ANSWER,
    },
)

SETTLE = _refusals(
    "/api/v1/refunds/3/settle",
    {
        **_VERSION_CONFLICTS,
        "payment-disputed": PaymentDisputed(),
        "refund-not-to-be-sent": RefundNotToBeSent(refund_status="requested"),
        "refund-already-sent": RefundAlreadySent(reference="GC-778-220"),
        "transfer-already-used": TransferAlreadyUsed(),
        "lock-timeout": LockTimeout(),
        "precondition-failed": PreconditionFailed(current_version=1),
        "idempotency-key-reused": IdempotencyKeyReused(["reference"]),
    },
)

REJECT = _refusals(
    "/api/v1/refunds/3/reject",
    {
        **_VERSION_CONFLICTS,
        "second-person-needed": SecondPersonNeeded(),
        "refund-not-requested": RefundNotRequested(refund_status="pending"),
        "lock-timeout": LockTimeout(),
        "precondition-failed": PreconditionFailed(current_version=1),
        "idempotency-key-reused": IdempotencyKeyReused(["reason"]),
    },
)

APPROVE = _refusals(
    "/api/v1/refunds/3/approve",
    {
        **_VERSION_CONFLICTS,
        "refund-declined": RefundDeclined(data={"refund_id": 3, "reason": "Charge ch_1 has already been refunded."}),
        "second-person-needed": SecondPersonNeeded(),
        "payment-disputed": PaymentDisputed(),
        "refund-not-requested": RefundNotRequested(refund_status="pending"),
        "refund-request-lapsed": RefundRequestLapsed(),
        "lock-timeout": LockTimeout(),
        "precondition-failed": PreconditionFailed(current_version=1),
        "idempotency-key-reused": IdempotencyKeyReused(["refund_id"]),
        **_NO_ANSWER,
    },
)

PUT_CONSULTATION = _refusals(
    "/api/v1/consultations/5",
    {
        "consultation-has-payments": ConsultationHasPayments(),
        "consultation-closed": ConsultationClosed(),
        "reference-fixed": ReferenceFixed(reference="BK-77"),
        "reference-taken": ReferenceTaken(),
        "validation-failed": ValidationFailed({"patient_email": ["No such patient."]}),
    },
)


CREATE_LINK = _refusals(
    "/api/v1/consultations/5/links",
    {
        "consultation-closed": ConsultationClosed(),
        "payment-links-off": PaymentLinksOff(),
    },
)

OF_DISABLED_ENDPOINT = _refusals(
    "/api/v1/webhook-endpoints/3/ping", {"webhook-endpoint-disabled": WebhookEndpointDisabled()}
)

CLOSE = _refusals(
    "/api/v1/consultations/5/close",
    {
        "invalid-transition": InvalidTransition(payment_status="processing"),
        "version-conflict-lost-race": VersionConflict.lost_every_race(),
        **_NO_ANSWER,
    },
)

RESOLVE_REVIEW = _refusals(
    "/api/v1/payments/41/resolve-review",
    {
        **_VERSION_CONFLICTS,
        "invalid-transition": InvalidTransition(payment_status="cancelled"),
        "lock-timeout": LockTimeout(),
        **_NO_ANSWER,
    },
)

WEBHOOK = _refusals("/api/v1/webhooks/stripe", _NO_ANSWER)


def _examples_by_code() -> dict[str, dict[str, Any]]:
    """One example body per problem code: the first one above, or else a body without details."""
    shown = {code: _without_details(problem) for code, problem in CATALOG.items()}
    for refusals in (REFUND, CREATE_LINK, CLOSE, PUT_CONSULTATION, REFUSED_CHECKOUT, CANCEL, CONFIRM, CREATE):
        for examples in refusals.values():
            for example in reversed(examples.values()):
                shown[example["value"]["type"].removeprefix("/problems/")] = example["value"]
    return shown


def _without_details(problem: Problem) -> dict[str, Any]:
    body = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.text,
        "instance": problem.example_path,
        "message": problem.text,
        "retryable": bool(problem.retryable),
        "request_id": _REQUEST_ID,
    }
    return {name: value for name, value in body.items() if value is not None}


# For the problem pages, by code.
PROBLEMS = _examples_by_code()
