"""What the pages share: scripts, styles and pictures at ``/checkout/static``, templates, and how a page is sent."""

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, make_response, render_template, request

from config import Settings
from payments_app import money
from payments_app.api.response_headers import page_policy
from payments_app.i18n.locale import nearest_language, reader_language, translate

# Without a view of its own, so that the page of payment links has its files in a service whose page at ``/`` is off.
_blueprint = Blueprint(
    "checkout", __name__, static_folder="static", static_url_path="/checkout/static", template_folder="templates"
)


def register_files(app: Flask) -> None:
    """Serve the files; every page that needs them calls this."""
    if _blueprint.name not in app.blueprints:
        app.register_blueprint(_blueprint)


def render_page(template: str, texts: Mapping[str, str], **more: Any) -> Response:
    """The page, in the language of ``?language=`` if it is given, else in the browser's."""
    g.language = nearest_language(request.args.get("language", ""))
    settings: Settings = current_app.config["SETTINGS"]
    page = render_template(
        template,
        language=reader_language(),
        texts={name: translate(text) for name, text in texts.items()},
        currency=settings.payment_currency,
        time_zone=settings.clinic_timezone.key,
        least_amount=money.to_text(settings.payment_min_amount_minor),
        greatest_amount=money.to_text(settings.payment_max_amount_minor),
        **more,
    )
    response = make_response(page)
    response.headers["Content-Security-Policy"] = page_policy()
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept-Language"
    return response
