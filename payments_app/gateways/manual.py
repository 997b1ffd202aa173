"""Payments by hand (GCash, bank transfer, e-wallet): staff confirm that the money has arrived, and send it back.

The caller has checked that only staff confirm; a refund never comes here.
"""

from collections.abc import Mapping

from payments_app.gateways.base import Charge, GatewayName
from payments_app.gateways.capabilities import FOREVER_SECONDS, Capabilities, CheckoutKind, Refundable
from payments_app.gateways.offline import OfflineGateway
from payments_app.i18n.messages import N_, LocalizedMessage

# Used if the clinic has set no instructions of its own. The reference is the number of the payment.
_INSTRUCTIONS = {
    "gcash": N_(
        "Pay by GCash to the number that the clinic gives you. Put reference %(reference)s in the GCash message."
    ),
    "bank_transfer": N_(
        "Transfer the amount to the clinic's bank account. Put reference %(reference)s in the transfer's message."
    ),
    "e_wallet": N_(
        "Pay by e-wallet to the account that the clinic gives you. Put reference %(reference)s in the message."
    ),
}


class ManualGateway(OfflineGateway):
    """``instructions``: the clinic's instructions for patients, by method code."""

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
        self._instructions = instructions

    def _checkout_data(self, charge: Charge, reference: str) -> dict[str, str]:
        # The clinic's own text is shown as it is.
        own = self._instructions.get(charge.payment_method)
        general = LocalizedMessage(_INSTRUCTIONS[charge.payment_method], reference=str(charge.payment_id))
        return {"instructions": own or general}
