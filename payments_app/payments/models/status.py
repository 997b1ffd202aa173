"""The statuses of a payment, and the allowed moves between them."""

from enum import StrEnum
from typing import Final

from payments_app.i18n.messages import N_


class PaymentStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


# Statuses as error texts show them, for the translations. The last ones are statuses of sessions and of refunds.
IN_WORDS: Final = (
    N_("pending"),
    N_("processing"),
    N_("completed"),
    N_("partially refunded"),
    N_("refunded"),
    N_("failed"),
    N_("cancelled"),
    N_("expired"),
    N_("open"),
    N_("succeeded"),
    N_("requested"),
    N_("unknown"),
)

# A payment in one of these statuses occupies its consultation, unless it is soft-deleted.
ACTIVE: Final = (
    PaymentStatus.PENDING,
    PaymentStatus.PROCESSING,
    PaymentStatus.COMPLETED,
    PaymentStatus.PARTIALLY_REFUNDED,
)
UNPAID: Final = (PaymentStatus.PENDING, PaymentStatus.PROCESSING)
ENDED_UNPAID: Final = (PaymentStatus.FAILED, PaymentStatus.CANCELLED, PaymentStatus.EXPIRED)
PAID: Final = (PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED)
# In these statuses a refund changes the status; in all others only the amounts.
REFUNDABLE: Final = (PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED)

# All allowed moves. Late money may complete a payment that failed or expired, if its consultation is free.
MOVES: Final[dict[str, frozenset[PaymentStatus]]] = {
    PaymentStatus.PENDING: frozenset({PaymentStatus.PROCESSING, PaymentStatus.COMPLETED, *ENDED_UNPAID}),
    PaymentStatus.PROCESSING: frozenset({PaymentStatus.COMPLETED, *ENDED_UNPAID}),
    PaymentStatus.COMPLETED: frozenset({PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED}),
    PaymentStatus.PARTIALLY_REFUNDED: frozenset({PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED}),
    PaymentStatus.REFUNDED: frozenset(),
    PaymentStatus.FAILED: frozenset({PaymentStatus.COMPLETED}),
    PaymentStatus.EXPIRED: frozenset({PaymentStatus.COMPLETED}),
    PaymentStatus.CANCELLED: frozenset(),
}
