"""Refuses plain HTTP in production (403): passwords, tokens and amounts must not be readable on the network.

The service itself listens on HTTP, behind a proxy that terminates HTTPS and sets ``X-Forwarded-Proto``. The header is
trusted from as many proxies as ``TRUSTED_PROXIES`` says (``create_app``). Redirects to HTTPS are the proxy's task.
"""

from flask import Flask, request

from payments_app.errors import HttpsRequired

# Monitoring requests these directly, not through the proxy.
EXEMPT_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


def init_app(app: Flask) -> None:
    """Call this before anything else that registers a ``before_request`` function which reads the request."""
    if app.config["SETTINGS"].is_production:
        app.before_request(_refuse_plain_http)


def _refuse_plain_http() -> None:
    if not request.is_secure and request.path not in EXEMPT_PATHS:
        raise HttpsRequired
