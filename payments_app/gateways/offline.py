"""What gateways without a machine behind them have in common: nothing is sent, so nothing is lost on the way."""

from config import MINOR_DIGITS
from payments_app.gateways.base import Approved, Bill, CheckoutSession, Money, RefundOrder, SessionStatus


class OnWordGateway:
    """Whatever we say has happened. ``name`` begins its references, ``_told`` is what the patient gets to pay by."""

    name: str

    def minor_digits(self, _currency: str) -> int:
        return MINOR_DIGITS  # the amounts stay with us

    def open_session(self, bill: Bill) -> CheckoutSession:
        return self._session(bill, f"{self.name}-{bill.payment_id}", SessionStatus.OPEN)

    def look_up(self, bill: Bill, transaction_id: str) -> CheckoutSession:
        return self._session(bill, transaction_id, SessionStatus.SUCCEEDED)

    def look_up_session(self, bill: Bill, reference: str) -> CheckoutSession:
        return self._session(bill, reference, SessionStatus.OPEN)

    def cancel_session(self, bill: Bill, reference: str) -> CheckoutSession:
        return self._session(bill, reference, SessionStatus.CANCELLED)

    def refund(self, order: RefundOrder) -> Approved:
        return Approved(f"{self.name}-refund-{order.refund_id}")

    # Whoever asked for it has handed the money out, or will.
    look_up_refund = refund

    def _session(self, bill: Bill, reference: str, status: SessionStatus) -> CheckoutSession:
        money = Money.for_all_of(bill, reference)
        return CheckoutSession(reference=reference, status=status, money=money, **self._told(bill, reference))

    def _told(self, bill: Bill, reference: str) -> dict[str, str]:
        raise NotImplementedError
