"""The address of a payment link."""

from flask import current_app, request

from payments_app.errors import PaymentLinksOff


def base_of_request() -> str:
    """``PUBLIC_URL``; outside production, if it is not set, the address that this request was sent to.

    Raises:
        PaymentLinksOff: it is not set, and this is production (409).
    """
    settings = current_app.config["SETTINGS"]
    if settings.public_url is not None:
        return str(settings.public_url)
    if settings.is_production:  # a request may call us by any name
        raise PaymentLinksOff
    return request.host_url.rstrip("/")


def of_token(base: str, token: str) -> str:
    return f"{base}/pay/{token}"
