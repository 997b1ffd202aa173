"""The patient's page at ``/``: a template in the reader's language. Its JavaScript reads the rest from the API."""

from flask import Blueprint, Flask, Response, current_app, g, make_response, render_template, request

from config import Settings
from payments_app import money
from payments_app.api.security_headers import page_policy
from payments_app.checkout.texts import TEXTS
from payments_app.i18n.locale import nearest_language, reader_language, translate

blueprint = Blueprint(
    "checkout", __name__, static_folder="static", static_url_path="/checkout/static", template_folder="templates"
)


def init_app(app: Flask) -> None:
    """Register the page if ``CHECKOUT_PAGE`` is on."""
    settings: Settings = app.config["SETTINGS"]
    if settings.checkout_page:
        app.register_blueprint(blueprint)


@blueprint.get("/")
def show_page() -> Response:
    """The page, in the language of ``?language=`` if it is given, else in the browser's."""
    g.language = nearest_language(request.args.get("language", ""))
    settings: Settings = current_app.config["SETTINGS"]
    page = render_template(
        "checkout.html",
        language=reader_language(),
        texts={name: translate(text) for name, text in TEXTS.items()},
        currency=settings.payment_currency,
        least_amount=money.to_text(settings.payment_min_amount_minor),
        greatest_amount=money.to_text(settings.payment_max_amount_minor),
        is_demo=not settings.is_production,
    )
    response = make_response(page)
    response.headers["Content-Security-Policy"] = page_policy()
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept-Language"
    return response
