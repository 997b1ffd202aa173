"""The page that shows the OpenAPI document and tries it out, without the internet: Swagger UI comes in a wheel."""

from importlib.metadata import version
from importlib.resources import files

from flask import Blueprint, Response, current_app, make_response, render_template, send_from_directory

from payments_app.api.security_headers import page_policy

# Swagger UI 5 as the wheel carries it; what we need of it, and no more of what it has.
_SWAGGER_UI = str(files("flask_swagger_ui") / "dist")
_SWAGGER_UI_VERSION = version("flask-swagger-ui")

# A day in seconds. The version is in the address, so another one is fetched at once.
_SWAGGER_UI_TTL_SECONDS = 86_400

# Beside our own, the arrows that Swagger UI's style sheet holds as data: URLs. Styles it sets one by one from its
# script, which needs no 'unsafe-inline'.
_CONTENT_SECURITY_POLICY = page_policy(images="'self' data:")

blueprint = Blueprint(
    "docs", __name__, url_prefix="/docs", template_folder="templates", static_folder="static", static_url_path="/page"
)


@blueprint.route("", strict_slashes=False)
def show_docs() -> Response:
    """The document as a page."""
    page = render_template(
        "docs.html",
        swagger_ui_version=_SWAGGER_UI_VERSION,
        # The published password is tried nowhere else.
        has_demo=not current_app.config["SETTINGS"].is_production,
    )
    response = make_response(page)
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.cache_control.no_cache = True
    return response


@blueprint.route('/swagger-ui/<any("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"):name>')
def swagger_ui(name: str) -> Response:
    """One of Swagger UI's files."""
    return send_from_directory(_SWAGGER_UI, name, max_age=_SWAGGER_UI_TTL_SECONDS)
