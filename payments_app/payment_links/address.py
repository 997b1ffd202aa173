"""The address of a payment link."""

from flask import current_app

from payments_app.api.own_address import own_address
from payments_app.errors import PaymentLinksOff


def base_of_request() -> str:
    """``PUBLIC_URL``; outside production, if it is not set, the address that this request was sent to.

    Raises:
        PaymentLinksOff: it is not set, and this is production (409).
    """
    settings = current_app.config["SETTINGS"]
    if settings.public_url is None and settings.is_production:
        raise PaymentLinksOff
    return own_address()


def of_token(base: str, token: str) -> str:
    return f"{base}/pay/{token}"
