"""The page of a payment link, at ``/pay/<token>``, and where gateways send patients back to, ``/pay/return``.

The server reads no token: the page's script exchanges it. So every link, good or bad, gets the same page.
"""

from flask import Blueprint, Flask, Response, current_app

from config import Settings
from payments_app.checkout.pages import register_files, render_page
from payments_app.checkout.texts import LINK_TEXTS

blueprint = Blueprint("pay", __name__, url_prefix="/pay", template_folder="templates")


def init_app(app: Flask) -> None:
    """Register the page if links can be made: in production, if ``PUBLIC_URL`` is set."""
    settings: Settings = app.config["SETTINGS"]
    if settings.public_url is not None or not settings.is_production:
        register_files(app)
        app.register_blueprint(blueprint)


@blueprint.get("/return")
def show_return() -> Response:
    """The way back from a gateway, which is given no token; the page finds its link in the browser's storage."""
    return _page("return.html")


@blueprint.get("/<token>")
def show_link(token: str) -> Response:  # noqa: ARG001  # only for the page's script
    """The page of a link, in the language of ``?language=`` if it is given, else in the browser's."""
    return _page("pay.html")


def _page(template: str) -> Response:
    settings: Settings = current_app.config["SETTINGS"]
    response = render_page(
        template, LINK_TEXTS, clinic_name=settings.clinic_name, clinic_address=settings.clinic_address
    )
    # The address is a secret: neither other sites nor the files of this page get it as the referring address.
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Robots-Tag"] = "noindex"
    return response
