"""The page at ``/`` for those who log in: a template in the reader's language.

Its JavaScript reads the rest from the API.
"""

from flask import Blueprint, Flask, Response, current_app

from config import Settings
from payments_app.checkout.pages import register_files, render_page
from payments_app.checkout.texts import TEXTS

blueprint = Blueprint("patients", __name__, template_folder="templates")


def init_app(app: Flask) -> None:
    """Register the page if ``CHECKOUT_PAGE`` is on."""
    settings: Settings = app.config["SETTINGS"]
    if settings.checkout_page:
        register_files(app)
        app.register_blueprint(blueprint)


@blueprint.get("/")
def show_page() -> Response:
    """The page, in the language of ``?language=`` if it is given, else in the browser's."""
    return render_page("checkout.html", TEXTS, is_demo=not current_app.config["SETTINGS"].is_production)
