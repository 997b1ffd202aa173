"""The page of a payment link, at ``/pay/<token>``, and where gateways send patients back to, ``/pay/return``.

The server reads no token: the page's script exchanges it. So every link, good or bad, gets the same page.
"""

from flask import Blueprint, Flask, Response, make_response, render_template

from config import Settings
from payments_app.api.security_headers import page_policy
from payments_app.i18n.locale import reader_language

blueprint = Blueprint("pay", __name__, url_prefix="/pay", template_folder="templates")


def init_app(app: Flask) -> None:
    """Put the page up wherever links can be made: in production, if ``PUBLIC_URL`` is set."""
    settings: Settings = app.config["SETTINGS"]
    if settings.public_url is not None or not settings.is_production:
        app.register_blueprint(blueprint)


@blueprint.get("/return")
def show_return() -> Response:
    """The way back from a gateway, which is given no token; the page finds its link in the browser's storage."""
    return _page()


@blueprint.get("/<token>")
def show_link(token: str) -> Response:  # noqa: ARG001  # for the page's script alone
    """The page of a link."""
    return _page()


def _page() -> Response:
    response = make_response(render_template("pay.html", language=reader_language()))
    response.headers["Content-Security-Policy"] = page_policy()
    response.headers["Cache-Control"] = "no-store"
    # The address is a secret: no other site, nor a file of ours, is told where the reader came from.
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Robots-Tag"] = "noindex"
    response.headers["Vary"] = "Accept-Language"
    return response
