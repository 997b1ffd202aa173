"""Payments by hand (GCash, bank transfer, e-wallet): staff confirm that the money has arrived.

The caller has checked that only staff confirm and refund.
"""

from collections.abc import Mapping

from payments_app.gateways.base import Charge, GatewayName
from payments_app.gateways.offline import OfflineGateway
from payments_app.i18n.messages import N_, LocalizedMessage

# Default instructions for patients; PAYMENT_INSTRUCTIONS_* replace them.
_INSTRUCTIONS = {
    "gcash": N_("Pay by GCash to the number that the clinic gives you. Put reference %(reference)s in the message."),
    "bank_transfer": N_(
        "Transfer the amount to the clinic's bank account. Put reference %(reference)s in the message."
    ),
    "e_wallet": N_(
        "Pay by e-wallet to the account that the clinic gives you. Put reference %(reference)s in the message."
    ),
}


class ManualGateway(OfflineGateway):
    """``instructions``: the clinic's instructions for patients, by method code."""

    name = GatewayName.MANUAL

    def __init__(self, instructions: Mapping[str, str]) -> None:
        self._instructions = instructions

    def _checkout_data(self, charge: Charge, reference: str) -> dict[str, str]:
        default = LocalizedMessage(_INSTRUCTIONS[charge.payment_method], reference=charge.payment_id)
        return {"instructions": self._instructions.get(charge.payment_method, default)}
