"""The page at ``/`` for those who log in: a template in the reader's language.

Its JavaScript reads the rest from the API.
"""

from flask import Blueprint, Flask, Response, current_app, g, make_response, render_template, request

from config import Settings
from payments_app import money
from payments_app.api.security_headers import page_policy
from payments_app.checkout import files
from payments_app.checkout.texts import TEXTS
from payments_app.i18n.locale import nearest_language, reader_language, translate

blueprint = Blueprint("patients", __name__, template_folder="templates")


def init_app(app: Flask) -> None:
    """Register the page if ``CHECKOUT_PAGE`` is on."""
    settings: Settings = app.config["SETTINGS"]
    if settings.checkout_page:
        files.register(app)
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
        time_zone=settings.clinic_timezone.key,
        least_amount=money.to_text(settings.payment_min_amount_minor),
        greatest_amount=money.to_text(settings.payment_max_amount_minor),
        is_demo=not settings.is_production,
    )
    response = make_response(page)
    response.headers["Content-Security-Policy"] = page_policy()
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept-Language"
    return response
