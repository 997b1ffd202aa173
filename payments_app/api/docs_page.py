"""``/docs``: the OpenAPI document in Swagger UI. Works offline: Swagger UI is a Python package."""

from importlib.metadata import version
from importlib.resources import files

from flask import Blueprint, Response, current_app, make_response, render_template, send_from_directory

from payments_app.api.response_headers import page_policy

# The files of Swagger UI 5 in the package; only three of them are served.
_SWAGGER_UI = str(files("flask_swagger_ui") / "dist")
_SWAGGER_UI_VERSION = version("flask-swagger-ui")

# One day, in seconds. The URL contains the version, so browsers fetch a new version at once.
_SWAGGER_UI_TTL_SECONDS = 86_400

# Allows data: images, because Swagger UI's style sheet has its arrows as data: URLs. Its script sets styles one by one,
# which does not need 'unsafe-inline'.
_CONTENT_SECURITY_POLICY = page_policy(images="'self' data:")

blueprint = Blueprint(
    "docs", __name__, url_prefix="/docs", template_folder="templates", static_folder="static", static_url_path="/page"
)


@blueprint.route("", strict_slashes=False)
def show_docs() -> Response:
    """Show the OpenAPI document in Swagger UI."""
    page = render_template(
        "docs.html",
        swagger_ui_version=_SWAGGER_UI_VERSION,
        # The page offers the demo's users only where they may exist.
        has_demo=not current_app.config["SETTINGS"].is_production,
    )
    response = make_response(page)
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.cache_control.no_cache = True
    return response


@blueprint.route('/swagger-ui/<any("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"):name>')
def swagger_ui(name: str) -> Response:
    """Serve one file of Swagger UI."""
    return send_from_directory(_SWAGGER_UI, name, max_age=_SWAGGER_UI_TTL_SECONDS)
