"""The OpenAPI 3.1 document, made from the schemas that validate, and the page that shows it without the internet."""

from typing import Any

import flask_smorest
from flask import Flask
from flask_swagger_ui import get_swaggerui_blueprint
from werkzeug.routing import BaseConverter, ValidationError

from payments_app.api import fields

DESCRIPTION = """One payment for one medical consultation, once, whatever happens.

Log in at `/api/login`, send the token as `Authorization: Bearer ...`, and send an `Idempotency-Key` with whatever has
an effect: the same key again gives the first answer again. Errors are problem details (RFC 9457); `retryable` says
whether the same request with the same key may succeed later."""


class IdConverter(BaseConverter):
    """Ids in paths: 1 to 2^63-1 in ASCII digits without leading zeros; anything else is no page of ours (404)."""

    regex = "[1-9][0-9]{0,18}"

    def to_python(self, value: str) -> int:
        if int(value) > fields.MAX_ID:
            raise ValidationError
        return int(value)


class Api(flask_smorest.Api):
    """flask-smorest's Api, whose error handler would answer in another shape than ``errors.py``."""

    def _register_error_handlers(self) -> None:
        pass


def init_app(app: Flask) -> Api:
    """Set the document up; blueprints registered with the result are described in it."""
    app.url_map.converters["id"] = IdConverter
    app.config.update(
        API_TITLE="Consultation payments",
        API_VERSION="1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={"info": {"description": DESCRIPTION}, "security": [{"bearer": []}]},
    )
    api = Api()
    api.register_converter(IdConverter, _id_parameter)
    api.register_field(fields.Amount, "number", None)
    api.register_field(fields.PayableAmount, "number", None)
    api.register_field(fields.Rate, "number", None)
    api.register_field(fields.Moment, "string", "date-time")
    api.init_app(app)
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    app.register_blueprint(get_swaggerui_blueprint("/docs", "/openapi.json", {"app_name": "Consultation payments"}))
    return api


def _id_parameter(_converter: IdConverter) -> dict[str, Any]:
    return {"type": "integer", "format": "int64", "minimum": 1, "maximum": fields.MAX_ID}
