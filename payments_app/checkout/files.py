"""The scripts, styles and pictures that the pages share, at ``/checkout/static``."""

from flask import Blueprint, Flask

# Without a view of its own, so that the page of payment links has its files in a service whose page at ``/`` is off.
_blueprint = Blueprint("checkout", __name__, static_folder="static", static_url_path="/checkout/static")


def register(app: Flask) -> None:
    """Serve the files; every page that needs them calls this."""
    if _blueprint.name not in app.blueprints:
        app.register_blueprint(_blueprint)
