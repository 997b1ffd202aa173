"""What a gateway is asked to open, as a session's row would say it."""

from datetime import UTC, datetime, timedelta

from payments_app.gateways.base import Charge, SessionRequest

RETURN_URL = "http://localhost:8000/pay/return"


def session_request(charge: Charge, *, number: int = 1, minutes: int = 60) -> SessionRequest:
    """A checkout that ends after so many minutes, in whole seconds."""
    return SessionRequest(
        charge=charge,
        number=number,
        expires_at=(datetime.now(UTC) + timedelta(minutes=minutes)).replace(microsecond=0),
        language="en",
        description=f"Consultation {charge.consultation_id}",
        return_url=RETURN_URL,
    )
