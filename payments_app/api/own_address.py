"""The address by which others reach this service."""

from flask import current_app, request


def own_address() -> str:
    """``PUBLIC_URL``; if it is not set, the address that this request was sent to. Without a slash at its end.

    In production a request may call us by any name. So there a gateway that moves money and leads patients away, and a
    payment link, both require ``PUBLIC_URL``.
    """
    public_url: str | None = current_app.config["SETTINGS"].public_url
    return public_url or request.host_url.rstrip("/")
