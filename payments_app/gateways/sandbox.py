"""Accepts everything and moves no money: for development, tests and the demo."""

from payments_app.gateways.base import Charge, GatewayName
from payments_app.gateways.offline import OfflineGateway


class SandboxGateway(OfflineGateway):
    """Every transaction id exists and pays the charge, even without a checkout."""

    name = GatewayName.SANDBOX

    def _checkout_data(self, charge: Charge, reference: str) -> dict[str, str]:
        return {"client_secret": f"{reference}_secret_sandbox"}
