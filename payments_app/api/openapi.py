"""The OpenAPI 3.1 document, generated from the schemas that validate requests."""

import threading
from collections.abc import Callable
from typing import Any

import flask_smorest
from apispec import APISpec
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask import Flask
from marshmallow.fields import Field
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter

from config import Settings
from payments_app import money
from payments_app.api import docs_page, fields, problem_pages
from payments_app.api.schema_converter import SchemaPlugin

DESCRIPTION = """Takes one payment for one medical consultation, exactly once.

Log in at `/api/login`, send the token as `Authorization: Bearer ...`, and send an `Idempotency-Key` with each request
that changes something: the same request with the same key gets the first response again. Errors are problem details
(RFC 9457); `type` is the path of a page that explains the problem, and `retryable` says whether the same request with
the same key may succeed later.

Under `/api/v1` a query parameter that is not described here is 422, as is one that is given twice with different
values; the error names the known ones. Webhooks of gateways ignore unknown parameters."""

BEARER = "The token of `POST /api/login` or of `POST /api/v1/payment-links/exchange`, or an API key of a program."

_TEXT = {"type": "string"}
_SECONDS = {"type": "integer", "minimum": 1}
_KEY = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": fields.KEY_PATTERN}
_KEY_IN_HEADER = {"type": "string", "minLength": 1, "maxLength": 257, "pattern": fields.KEY_HEADER_PATTERN}

# The headers of requests, by name.
PARAMETERS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "description": "One key per operation, bare or in quotes: a repeated request with the same key gets the first "
        "response again. Generated if absent. A key with a comma is 422, unless it is stored already, because a header "
        "that was sent twice arrives as one with a comma; send such keys in the body.",
        "schema": _KEY_IN_HEADER,
    },
    "X-Idempotency-Key": {
        "description": "Another name of Idempotency-Key; if both are sent, they must be equal.",
        "schema": _KEY_IN_HEADER,
    },
    "If-Match": {
        "description": "The ETag of the payment that the caller last read; 412 if the payment has changed since. "
        "All ETags of a list must be equal: different ones are 412 too.",
        "schema": _TEXT,
    },
    "If-None-Match": {"description": "The ETag of the caller's copy; 304 if it is still current.", "schema": _TEXT},
}

# The headers of responses, by name. ``required``: always present in the responses that document it.
HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {
        "description": "The request's id in our logs; the caller's own if a well-formed one was sent.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Cache-Control": {"required": True, "schema": _TEXT},
    "ETag": {"description": "The version of the resource, in quotes.", "required": True, "schema": _TEXT},
    "Content-Disposition": {
        "description": "The name of the file, and whether to show it or to store it.",
        "required": True,
        "schema": _TEXT,
    },
    "Vary": {"description": "The request headers that the response depends on.", "required": True, "schema": _TEXT},
    "Location": {
        "description": "The path of the new resource.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Link": {"description": 'The next page, if there is one: `<...>; rel="next"` (RFC 8288).', "schema": _TEXT},
    "Idempotency-Key": {
        "description": "The idempotency key of the request, if it is well-formed.",
        "schema": _KEY,
    },
    "Idempotent-Replayed": {
        "description": "Present if an earlier request had this effect: nothing new was done.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "WWW-Authenticate": {"required": True, "schema": {"type": "string", "enum": ["Bearer"]}},
    "Retry-After": {"description": "Seconds to wait before sending the same request again.", "schema": _SECONDS},
    "X-RateLimit-Limit": {
        "description": "The number of allowed requests.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Remaining": {"description": "The number of remaining requests.", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {
        "description": "When the limit resets, in seconds since 1970.",
        "schema": {"type": "integer"},
    },
}


class IdConverter(BaseConverter):
    """Ids in paths: 1 to 2^63-1 in ASCII digits without leading zeros; anything else is 404."""

    regex = "[1-9][0-9]{0,18}"

    def to_python(self, value: str) -> int:
        if int(value) > fields.MAX_ID:
            raise NotFound  # for every method; a ValidationError would try other routes and end as 405
        return int(value)


class KeyConverter(BaseConverter):
    """Idempotency keys in paths. A key may contain slashes, so it takes the rest of the path."""

    regex = ".+"
    part_isolating = False


class Api(flask_smorest.Api):
    """flask-smorest's Api without its own errors and pagination, whose formats differ from ours.

    Blueprints are described when the document is first read, not when they are registered: to describe them takes four
    fifths of the time of ``create_app``, and most processes, such as every command, never show the document.
    """

    DEFAULT_ERROR_RESPONSE_NAME = None  # each view documents its own errors

    def __init__(self, **kwargs: Any) -> None:
        self._undescribed: list[flask_smorest.Blueprint] = []
        self._describing = threading.Lock()  # of two requests at once, one describes
        super().__init__(**kwargs)

    @property
    def spec(self) -> APISpec:
        """The document, with every blueprint that is registered."""
        with self._describing:
            while self._undescribed:
                blueprint = self._undescribed[0]
                blueprint.register_views_in_doc(self, self._app, self._spec, name=blueprint.name, parameters=None)
                self._spec.tag({"name": blueprint.name, "description": blueprint.description})
                del self._undescribed[0]  # not earlier: after an error the document must not lack it silently
        return self._spec

    @spec.setter
    def spec(self, spec: APISpec) -> None:
        self._spec = spec

    def register_blueprint(self, blueprint: flask_smorest.Blueprint) -> None:
        self._app.register_blueprint(blueprint)
        self._undescribed.append(blueprint)

    def _register_error_handlers(self) -> None:
        pass

    def _register_responses(self) -> None:
        pass

    def _register_pagination_header(self) -> None:
        pass


def init_app(app: Flask) -> Api:
    """Set up the OpenAPI document. It describes the blueprints that are registered with the returned Api."""
    app.url_map.converters.update(id=IdConverter, key=KeyConverter)
    # A key may hold two slashes in a row, which must not become one.
    app.url_map.merge_slashes = False
    app.config.update(
        API_TITLE="Consultation payments",
        API_VERSION="1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION, "license": {"name": "MIT", "identifier": "MIT"}},
            "servers": _servers(app.config["SETTINGS"]),
            # Relative to the document, so that it also works behind a path prefix.
            "externalDocs": {"description": "Every problem, with its meaning and what to do", "url": "problems"},
            "security": [{"bearer": []}],
        },
    )
    api = Api(spec_kwargs={"marshmallow_plugin": SchemaPlugin()})
    api.register_converter(IdConverter, _id_parameter)
    api.register_converter(KeyConverter, lambda _converter: _KEY)
    api.register_field(fields.Amount, "number", None)
    api.register_field(fields.RequestedAmount, ["number", "string"], None)
    api.register_field(fields.RateField, "number", None)
    api.register_field(fields.UtcDateTimeField, "string", "date-time")
    api.register_field(fields.ZonedDateTime, "string", "date-time")
    api.init_app(app)
    api.ma_plugin.converter.add_attribute_function(_limits_of_amounts(app.config["SETTINGS"]))
    for name, parameter in PARAMETERS.items():
        api.spec.components.parameter(name, "header", parameter, lazy=True)
    for name, header in HEADERS.items():
        api.spec.components.header(name, header, lazy=True)
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer", "description": BEARER})
    app.register_blueprint(docs_page.blueprint)
    app.register_blueprint(problem_pages.blueprint)
    return api


def _servers(settings: Settings) -> list[dict[str, str]]:
    """The first is the one that generated clients use. The document is made once, so no request can say the address."""
    here = {"url": "/", "description": "The host that this document was read from"}
    if settings.public_url is None:
        return [here]
    return [{"url": settings.public_url, "description": "The public address"}, here]


def _id_parameter(_converter: IdConverter) -> dict[str, Any]:
    return {"type": "integer", "format": "int64", "minimum": 1, "maximum": fields.MAX_ID}


def _limits_of_amounts(settings: Settings) -> Callable[..., dict[str, Any]]:
    """For apispec: the limits of a payable amount, from the settings."""
    limits = {
        "minimum": money.to_json_number(settings.payment_min_amount_minor),
        "maximum": money.to_json_number(settings.payment_max_amount_minor),
    }

    def payable_amount2limits(_converter: OpenAPIConverter, field: Field[Any], **_kwargs: Any) -> dict[str, Any]:
        return limits if isinstance(field, fields.PayableAmount) else {}

    return payable_amount2limits
