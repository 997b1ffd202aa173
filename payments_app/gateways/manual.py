"""Payments by hand (GCash, bank transfer, e-wallet): staff confirm that the money has arrived.

The caller has checked that only staff confirm and refund.
"""

from collections.abc import Mapping

from payments_app.gateways.base import Charge, GatewayName
from payments_app.gateways.offline import OfflineGateway
from payments_app.i18n.messages import N_

# What patients are told to do where the clinic says nothing else.
_INSTRUCTIONS = {
    "gcash": N_("Pay by GCash to the number that the clinic gives you. Quote the number of your payment."),
    "bank_transfer": N_("Transfer the amount to the clinic's bank account. Quote the number of your payment."),
    "e_wallet": N_("Pay by e-wallet to the account that the clinic gives you. Quote the number of your payment."),
}


class ManualGateway(OfflineGateway):
    """``instructions``: the clinic's instructions for patients, by method code."""

    name = GatewayName.MANUAL

    def __init__(self, instructions: Mapping[str, str]) -> None:
        self._instructions = {**_INSTRUCTIONS, **instructions}

    def _checkout_data(self, charge: Charge, reference: str) -> dict[str, str]:
        return {"instructions": self._instructions[charge.payment_method]}
