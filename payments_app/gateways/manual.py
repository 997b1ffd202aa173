"""Money that people move and staff see arrive: staff's word is what counts.

That only staff confirm and refund is judged before this is asked.
"""

from collections.abc import Mapping

from payments_app.gateways.base import Charge, GatewayName
from payments_app.gateways.capabilities import FOREVER_SECONDS, Capabilities, CheckoutKind, Refundable
from payments_app.gateways.offline import OfflineGateway
from payments_app.i18n.messages import N_

# What patients are told to do where the clinic says nothing else.
_INSTRUCTIONS = {
    "gcash": N_("Pay by GCash to the number that the clinic gives you. Quote the number of your payment."),
    "bank_transfer": N_("Transfer the amount to the clinic's bank account. Quote the number of your payment."),
    "e_wallet": N_("Pay by e-wallet to the account that the clinic gives you. Quote the number of your payment."),
}


class ManualGateway(OfflineGateway):
    """``instructions``: what the clinic tells patients to do, by the code of the method."""

    name = GatewayName.MANUAL
    capabilities = Capabilities(
        methods=dict.fromkeys(_INSTRUCTIONS, Refundable.IN_PARTS),
        currencies=None,
        checkout=CheckoutKind.INSTRUCTIONS,
        remembers_keys_seconds=FOREVER_SECONDS,
        session_seconds=None,
        ends_sessions=True,
        can_be_asked=False,
    )

    def __init__(self, instructions: Mapping[str, str]) -> None:
        self._instructions = {**_INSTRUCTIONS, **instructions}

    def _told(self, charge: Charge, reference: str) -> dict[str, str]:
        return {"instructions": self._instructions[charge.payment_method]}
