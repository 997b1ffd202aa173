"""The page of a payment link, at ``/pay/<token>``, and where gateways send patients back to, ``/pay/return``.

The server reads no token: the page's script exchanges it. So every link, good or bad, gets the same page.
"""

from flask import Blueprint, Flask, Response, current_app, g, make_response, render_template, request

from config import Settings
from payments_app import money
from payments_app.api.security_headers import page_policy
from payments_app.checkout import files
from payments_app.checkout.texts import LINK_TEXTS
from payments_app.i18n.locale import nearest_language, reader_language, translate

blueprint = Blueprint("pay", __name__, url_prefix="/pay", template_folder="templates")


def init_app(app: Flask) -> None:
    """Register the page if links can be made: in production, if ``PUBLIC_URL`` is set."""
    settings: Settings = app.config["SETTINGS"]
    if settings.public_url is not None or not settings.is_production:
        files.register(app)
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
    g.language = nearest_language(request.args.get("language", ""))
    settings: Settings = current_app.config["SETTINGS"]
    page = render_template(
        template,
        language=reader_language(),
        clinic_name=settings.clinic_name,
        clinic_address=settings.clinic_address,
        time_zone=settings.clinic_timezone.key,
        texts={name: translate(text) for name, text in LINK_TEXTS.items()},
        currency=settings.payment_currency,
        least_amount=money.to_text(settings.payment_min_amount_minor),
        greatest_amount=money.to_text(settings.payment_max_amount_minor),
    )
    response = make_response(page)
    response.headers["Content-Security-Policy"] = page_policy()
    response.headers["Cache-Control"] = "no-store"
    # The address is a secret: neither other sites nor the files of this page get it as the referring address.
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Robots-Tag"] = "noindex"
    response.headers["Vary"] = "Accept-Language"
    return response
