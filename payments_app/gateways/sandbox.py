"""Accepts anything and moves nothing: for development, tests and the demo."""

from payments_app.gateways.base import Charge, GatewayName
from payments_app.gateways.offline import OfflineGateway


class SandboxGateway(OfflineGateway):
    """Every transaction exists and pays the bill, without a checkout first."""

    name = GatewayName.SANDBOX

    def _told(self, charge: Charge, reference: str) -> dict[str, str]:
        return {"client_secret": f"{reference}_secret_sandbox"}
