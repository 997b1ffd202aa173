"""Accepts anything and moves nothing: for development, tests and the demo."""

from payments_app.gateways.base import Approved, Bill, CheckoutSession, Money, RefundOrder, SessionStatus


class SandboxGateway:
    """Every transaction exists and pays the bill, without a checkout first."""

    def open_session(self, bill: Bill) -> CheckoutSession:
        return self._session(bill, f"sandbox-{bill.payment_id}", SessionStatus.OPEN)

    def look_up(self, bill: Bill, transaction_id: str) -> CheckoutSession:
        return self._session(bill, transaction_id, SessionStatus.SUCCEEDED)

    def look_up_session(self, bill: Bill, reference: str) -> CheckoutSession:
        return self._session(bill, reference, SessionStatus.OPEN)

    def cancel_session(self, bill: Bill, reference: str) -> CheckoutSession:
        return self._session(bill, reference, SessionStatus.CANCELLED)

    def refund(self, order: RefundOrder) -> Approved:
        return Approved(f"sandbox-refund-{order.refund_id}")

    look_up_refund = refund

    def _session(self, bill: Bill, reference: str, status: SessionStatus) -> CheckoutSession:
        return CheckoutSession(
            reference=reference,
            status=status,
            client_secret=f"{reference}_secret_sandbox",
            money=Money.for_all_of(bill, reference),
        )
