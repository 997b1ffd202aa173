"""The page of the front desk at ``/desk``, for staff. Its JavaScript reads the rest from the API."""

from flask import Blueprint, Flask, Response, current_app

from config import Settings
from payments_app.checkout.pages import register_files, render_page
from payments_app.desk.queries import Queue
from payments_app.desk.texts import TEXTS
from payments_app.payments.models.status import PaymentStatus

blueprint = Blueprint("front_desk", __name__, url_prefix="/desk", template_folder="templates", static_folder="static")


def init_app(app: Flask) -> None:
    """Register the page. Without a login of an admin it shows nothing."""
    register_files(app)
    app.register_blueprint(blueprint)


@blueprint.get("")
def show_desk() -> Response:
    """The page, in the language of ``?language=`` if it is given, else in the browser's."""
    settings: Settings = current_app.config["SETTINGS"]
    response = render_page(
        "desk.html",
        TEXTS,
        clinic_name=settings.clinic_name,
        is_demo=not settings.is_production,
        queues=tuple(Queue),
        statuses=tuple(PaymentStatus),
    )
    response.headers["X-Robots-Tag"] = "noindex"
    return response
