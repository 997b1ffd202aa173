"""Base of the gateways without a remote service. Nothing is sent, so no outcome is ever unknown."""

from contextlib import AbstractContextManager, nullcontext

from config import MINOR_DIGITS
from payments_app.gateways.base import (
    Approved,
    Charge,
    CheckoutSession,
    GatewayPayment,
    GatewayRefundRequest,
    Reachable,
    SessionRequest,
    SessionStatus,
)


class OfflineGateway:
    """Every call succeeds. References begin with ``name``; ``_checkout_data`` is what the patient needs to pay."""

    name: str

    def place(self) -> AbstractContextManager[None]:
        return nullcontext()

    def minor_digits(self, _currency: str) -> int:
        return MINOR_DIGITS  # no amount leaves this service

    def open_session(self, request: SessionRequest) -> CheckoutSession:
        first = f"{self.name}-{request.charge.payment_id}"
        reference = first if request.number == 1 else f"{first}-{request.number}"
        return self._session(request.charge, reference, SessionStatus.OPEN)

    def look_up(self, charge: Charge, transaction_id: str) -> CheckoutSession:
        return self._session(charge, transaction_id, SessionStatus.SUCCEEDED)

    def look_up_session(self, charge: Charge, reference: str) -> CheckoutSession:
        return self._session(charge, reference, SessionStatus.OPEN)

    def cancel_session(self, charge: Charge, reference: str) -> CheckoutSession:
        return self._session(charge, reference, SessionStatus.CANCELLED)

    def refund(self, order: GatewayRefundRequest) -> Approved:
        return Approved(f"{self.name}-refund-{order.refund_id}")

    # Never called for money by hand: staff send that, and say so.
    look_up_refund = refund

    def ping(self) -> Reachable:
        return Reachable(None)

    def _session(self, charge: Charge, reference: str, status: SessionStatus) -> CheckoutSession:
        money = GatewayPayment.full_payment_of(charge, reference)
        return CheckoutSession(
            reference=reference, status=status, money=money, **self._checkout_data(charge, reference)
        )

    def _checkout_data(self, charge: Charge, reference: str) -> dict[str, str]:
        raise NotImplementedError
