"""Accepts anything and moves nothing: for development, tests and the demo."""

from payments_app.gateways.base import Bill, GatewayName
from payments_app.gateways.offline import OnWordGateway


class SandboxGateway(OnWordGateway):
    """Every transaction exists and pays the bill, without a checkout first."""

    name = GatewayName.SANDBOX

    def _told(self, bill: Bill, reference: str) -> dict[str, str]:
        return {"client_secret": f"{reference}_secret_sandbox"}
