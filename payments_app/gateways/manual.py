"""Money that people move and staff see arrive: staff's word is what counts.

That only staff confirm and refund is judged before this is asked.
"""

from collections.abc import Mapping

from payments_app.gateways.base import Bill, GatewayName
from payments_app.gateways.on_word import OnWordGateway


class ManualGateway(OnWordGateway):
    """``instructions``: what patients are told to do, by the code of the method."""

    name = GatewayName.MANUAL

    def __init__(self, instructions: Mapping[str, str]) -> None:
        self._instructions = instructions

    def _told(self, bill: Bill, reference: str) -> dict[str, str]:
        return {"instructions": self._instructions[bill.payment_method]}
