"""Money that people move and staff see arrive: nothing is sent, and staff's word is what counts.

That only staff confirm and refund is judged before this is asked.
"""

from collections.abc import Mapping

from payments_app.gateways.base import Approved, Bill, CheckoutSession, Money, RefundOrder, SessionStatus


class ManualGateway:
    """``instructions``: what patients are told to do, by the code of the method."""

    def __init__(self, instructions: Mapping[str, str]) -> None:
        self._instructions = instructions

    def open_session(self, bill: Bill) -> CheckoutSession:
        return self._session(bill, f"manual-{bill.payment_id}", SessionStatus.OPEN)

    def look_up(self, bill: Bill, transaction_id: str) -> CheckoutSession:
        return self._session(bill, transaction_id, SessionStatus.SUCCEEDED)

    def look_up_session(self, bill: Bill, reference: str) -> CheckoutSession:
        return self._session(bill, reference, SessionStatus.OPEN)

    def cancel_session(self, bill: Bill, reference: str) -> CheckoutSession:
        return self._session(bill, reference, SessionStatus.CANCELLED)

    def refund(self, order: RefundOrder) -> Approved:
        return Approved(f"manual-refund-{order.refund_id}")

    # Whoever asked for it has handed the money out, or will.
    look_up_refund = refund

    def _session(self, bill: Bill, reference: str, status: SessionStatus) -> CheckoutSession:
        return CheckoutSession(
            reference=reference,
            status=status,
            instructions=self._instructions[bill.payment_method],
            money=Money.for_all_of(bill, reference),
        )
