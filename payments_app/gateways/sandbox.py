"""Accepts everything and moves no money: for development, tests and the demo."""

from payments_app.gateways.base import Charge, GatewayName
from payments_app.gateways.capabilities import FOREVER_SECONDS, Capabilities, CheckoutKind, Refundable
from payments_app.gateways.offline import OfflineGateway


class SandboxGateway(OfflineGateway):
    """Every transaction id exists and pays the charge, even without a checkout."""

    name = GatewayName.SANDBOX
    capabilities = Capabilities(
        methods=dict.fromkeys(("stripe", "gcash", "e_wallet", "bank_transfer"), Refundable.IN_PARTS),
        currencies=None,
        checkout=CheckoutKind.CLIENT_SECRET,
        remembers_keys_seconds=FOREVER_SECONDS,
        session_seconds=None,
        ends_sessions=True,
        can_be_asked=True,
        moves_money=False,
    )

    def _checkout_data(self, charge: Charge, reference: str) -> dict[str, str]:
        return {"client_secret": f"{reference}_secret_sandbox"}
