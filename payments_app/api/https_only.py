"""In production nobody is answered over plain HTTP: passwords, tokens and amounts would go in the clear.

The service itself speaks HTTP, behind a proxy that speaks HTTPS and says so in ``X-Forwarded-Proto``, which is believed
of as many proxies as ``TRUSTED_PROXIES`` says (``create_app``). Sending people on to HTTPS is the proxy's business.
"""

from flask import Flask, request

from payments_app.errors import HttpsRequired

# Asked from next door, without a token: by whoever watches over the service, not through the proxy.
EXEMPT_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


def init_app(app: Flask) -> None:
    """To be called before everything that reads something of a request."""
    if app.config["SETTINGS"].is_production:
        app.before_request(_refuse_plain_http)


def _refuse_plain_http() -> None:
    if not request.is_secure and request.path not in EXEMPT_PATHS:
        raise HttpsRequired
