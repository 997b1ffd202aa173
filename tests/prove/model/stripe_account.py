"""What Stripe does, as far as the model has to know: sessions, refunds, and how badly the line may behave."""

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.prove.model.records import Dispute, Payment, Refund


class Weather(Enum):
    """On the way to Stripe; the value is the fake's mode of misbehaving."""

    FINE = ""
    LOST = "drop"  # done, and no answer
    BROKEN = "error_before"  # an answer of 500, and nothing done
    REFUSING = "refuse"  # refused for good, whatever is asked for
    LATE = "late"  # no answer; done long after
    SLOW = "slow"  # a refund is accepted, and on its way

    @property
    def is_silent(self) -> bool:
        return self in (Weather.LOST, Weather.BROKEN, Weather.LATE)


class StripeAccount:
    """Sessions by their payment: ``open``, ``processing``, ``succeeded``, ``canceled``.

    What is asked again under the same gateway key is done once, and answered as it was the first time. A session that
    was refused is asked for under another key the next time.
    """

    def __init__(self) -> None:
        self.sessions: dict[Payment, str] = {}
        # Its own names for them, which it alone can give.
        self.references: dict[Payment, str] = {}
        self.refunds: list[tuple[Payment, Refund]] = []
        self.disputes: list[tuple[Payment, Dispute]] = []
        self._late: list[tuple[Payment, Refund]] = []

    def open_session(self, payment: "Payment", weather: Weather) -> str | None:
        """What is answered: ``open``, or ``refused``; None for silence."""
        if weather is Weather.REFUSING and payment not in self.sessions:
            return "refused"
        if weather is not Weather.BROKEN:
            self.sessions.setdefault(payment, "open")
        return None if weather.is_silent else "open"

    def find_session(self, payment: "Payment", weather: Weather) -> str | None:
        return None if weather.is_silent else self.sessions[payment]

    def end_session(self, payment: "Payment", weather: Weather) -> str | None:
        if weather is not Weather.BROKEN and self.sessions[payment] == "open":
            self.sessions[payment] = "canceled"
        return self.find_session(payment, weather)

    def has_paid(self, payment: "Payment", transaction: str) -> bool:
        return self.references.get(payment) == transaction and self.sessions[payment] == "succeeded"

    def left(self, payment: "Payment") -> int:
        """What a refund may still be of, by Stripe's account."""
        return payment.amount - sum(r.amount for p, r in self.refunds if p is payment and r.at_stripe != "failed")

    def take_refund(self, payment: "Payment", refund: "Refund", weather: Weather) -> str:
        """The refund's status by what is answered: ``unknown`` for silence."""
        if weather is Weather.LATE:
            self._late.append((payment, refund))
        elif weather is Weather.REFUSING:
            refund.at_stripe = "refused"
        elif weather is not Weather.BROKEN:
            self._apply(payment, refund, "pending" if weather is Weather.SLOW else "succeeded")
        if weather.is_silent or refund.at_stripe is None:
            return "unknown"
        return "failed" if refund.at_stripe == "refused" else refund.at_stripe

    def find_or_take_refund(self, payment: "Payment", refund: "Refund", weather: Weather, *, may_be_sent: bool) -> str:
        if weather.is_silent or (refund.at_stripe in (None, "refused") and not may_be_sent):
            return "silent"
        if refund.at_stripe in (None, "refused"):
            self._apply(payment, refund, "succeeded")
        return "failed" if refund.at_stripe == "refused" else str(refund.at_stripe)

    def apply_late(self) -> None:
        late, self._late = self._late, []
        for payment, refund in late:
            self._apply(payment, refund, "succeeded")

    def refund_in_dashboard(self, payment: "Payment", refund: "Refund") -> None:
        self._apply(payment, refund, "succeeded")

    def _apply(self, payment: "Payment", refund: "Refund", status: str) -> None:
        if refund.at_stripe is None:
            refund.at_stripe = status if refund.amount <= self.left(payment) else "refused"
            if refund.at_stripe != "refused":
                self.refunds.append((payment, refund))
