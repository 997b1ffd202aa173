"""Accepts everything and moves no money: for development, tests and the demo."""

from datetime import datetime

from itsdangerous import BadData, URLSafeSerializer

from payments_app.gateways.base import Charge, GatewayName, SessionStatus
from payments_app.gateways.capabilities import FOREVER_SECONDS, Capabilities, CheckoutKind, Refundable
from payments_app.gateways.events import GatewayEvent, PaymentAttemptFailed
from payments_app.gateways.offline import OfflineGateway

# Of its checkout page, below this service's own address.
PATH = "/sandbox/checkout"


class SandboxGateway(OfflineGateway):
    """Every transaction id exists and pays the charge, even without a checkout.

    ``secret_key`` signs the addresses of its checkouts: as at a gateway, the address is enough to pay with.
    """

    name = GatewayName.SANDBOX
    capabilities = Capabilities(
        methods=dict.fromkeys(("stripe", "gcash", "e_wallet", "bank_transfer"), Refundable.IN_PARTS),
        currencies=None,
        checkout=CheckoutKind.REDIRECT,
        remembers_keys_seconds=FOREVER_SECONDS,
        session_seconds=None,
        ends_sessions=True,
        can_be_asked=True,
        moves_money=False,
    )

    def __init__(self, secret_key: str) -> None:
        self._serializer = URLSafeSerializer(secret_key, salt="sandbox-checkout")

    def reference_in(self, token: str) -> str | None:
        """The session that an address is of; None if this service has not signed it."""
        try:
            return str(self._serializer.loads(token))
        except BadData:
            return None

    def paid_event(self, charge: Charge, reference: str, *, at: datetime) -> GatewayEvent:
        """The event that the patient has paid; the same one however often they press."""
        return GatewayEvent(
            event_id=f"{reference}-paid",
            type="checkout.paid",
            reference=reference,
            created_at=at,
            payload=self._session(charge, reference, SessionStatus.SUCCEEDED),
            is_readable=True,
        )

    def declined_event(self, charge: Charge, reference: str, *, event_id: str, at: datetime) -> GatewayEvent:
        """The event that one attempt was declined."""
        return GatewayEvent(
            event_id=event_id,
            type="checkout.declined",
            reference=reference,
            created_at=at,
            payload=PaymentAttemptFailed(self._session(charge, reference, SessionStatus.OPEN)),
            is_readable=True,
        )

    def _checkout_data(self, charge: Charge, reference: str) -> dict[str, str]:  # the reference is enough
        return {"redirect_url": f"{PATH}/{self._serializer.dumps(reference)}"}
