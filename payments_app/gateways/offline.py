"""What gateways without a machine behind them have in common: nothing is sent, so nothing is lost on the way."""

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
    """Whatever we say has happened. ``name`` begins its references, ``_told`` is what the patient gets to pay by."""

    name: str

    def minor_digits(self, _currency: str) -> int:
        return MINOR_DIGITS  # the amounts stay with us

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

    # Whoever asked for it has handed the money out, or will.
    look_up_refund = refund

    def ping(self) -> Reachable:
        return Reachable(None)

    def _session(self, charge: Charge, reference: str, status: SessionStatus) -> CheckoutSession:
        money = GatewayPayment.full_payment_of(charge, reference)
        return CheckoutSession(reference=reference, status=status, money=money, **self._told(charge, reference))

    def _told(self, charge: Charge, reference: str) -> dict[str, str]:
        raise NotImplementedError
