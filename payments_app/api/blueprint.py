"""A blueprint whose decorators check and document a view's requests and responses; functions for JSON responses."""

import json
from collections.abc import Callable, Mapping
from functools import cache, wraps
from http import HTTPStatus
from typing import Any, ClassVar, NoReturn, TypeVar

import flask_smorest
from flask import Request, Response, request
from flask.globals import request_ctx
from marshmallow import Schema, fields
from marshmallow import ValidationError as MarshmallowError
from webargs.flaskparser import FlaskParser

from payments_app.api.examples import Examples
from payments_app.api.fields import errors_by_field
from payments_app.api.json_body import names_one_type, read_all, read_json
from payments_app.api.json_response import JsonResponse
from payments_app.api.problem_schemas import STATUSES_WITH_EXACT_PROBLEMS, Problem, schema_of_problems
from payments_app.api.query import refuse_contradictions, refuse_parameters
from payments_app.errors import ValidationFailed
from payments_app.i18n.locale import translate

View = TypeVar("View", bound=Callable[..., Any])

_PROBLEM_TYPE = "application/problem+json"

# Statuses of checks that run before the idempotency key is read: these responses never name a key.
_STATUSES_BEFORE_KEY = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.TOO_MANY_REQUESTS,
)


class StrictParser(FlaskParser):
    """webargs with our strict JSON reader and our flat validation errors."""

    # As in a JSON body: unknown names are refused.
    DEFAULT_UNKNOWN_BY_LOCATION: ClassVar[dict[str, str | None]] = {  # type: ignore[misc]  # webargs has no ClassVar
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": None,
    }

    def get_default_request(self) -> Request:
        return request_ctx.request  # flask.request would look it up anew for each check of the body

    def load_json(self, req: Request, schema: Schema) -> Any:
        body = read_json(req)
        refuse_parameters(req)
        return body

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        refuse_contradictions(req.args)
        return super().load_querystring(req, schema)

    def load_json_or_form(self, req: Request, schema: Schema) -> Any:
        if req.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data") and names_one_type(req):
            read_all(req)
            refuse_contradictions(req.form)
            return self.load_form(req, schema)
        return read_json(req)

    def handle_error(self, error: MarshmallowError, *_args: Any, **_kwargs: Any) -> NoReturn:
        parts: Mapping[str, Any] = error.messages  # type: ignore[assignment]  # webargs nests them by location
        raise ValidationFailed(
            {name: texts for part in parts.values() for name, texts in errors_by_field(part).items()}
        )


class Blueprint(flask_smorest.Blueprint):
    """flask-smorest's blueprint with strict arguments, and with our response envelope in the OpenAPI document."""

    ARGUMENTS_PARSER = StrictParser()
    DEFAULT_LOCATION_CONTENT_TYPE_MAPPING: ClassVar[dict[str, str]] = {
        **flask_smorest.Blueprint.DEFAULT_LOCATION_CONTENT_TYPE_MAPPING,
        "json_or_form": "application/json",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare_doc_cbks += [_describe_problems, _describe_headers]

    def arguments(self, schema: type[Schema], **kwargs: Any) -> Callable[[View], View]:
        """Read and check the arguments. The schema is instantiated once, not per request."""
        decorate: Callable[[View], View] = super().arguments(schema(), **kwargs)
        return decorate

    def success_response(
        self,
        status: int,
        shape: type[Schema],
        *,
        many: bool = False,
        headers: tuple[str, ...] = (),
        examples: Examples | None = None,
    ) -> Callable[[View], View]:
        """Document a success: ``{"data": ..., "message": ...}``, or for many ``{"data": [...], "meta": {...}}``.

        ``headers`` are names in ``openapi.HEADERS``.
        """
        envelope = _envelope(shape, many=many)
        respond = self.response(status, envelope, headers={name: name for name in headers}, examples=examples)

        def decorate(view: View) -> View:
            return _described(view, by=lambda blank: self.doc(operationId=view.__name__)(respond(blank)))

        return decorate

    def file_response(self, content_type: str, *, headers: tuple[str, ...] = ()) -> Callable[[View], View]:
        """Document a success (200) that is a file. ``headers`` are names in ``openapi.HEADERS``."""
        # Generators of clients know bytes by ``format``, which OpenAPI 3.1 no longer defines.
        body = {"type": "string"} if content_type.startswith("text/") else {"type": "string", "format": "binary"}
        respond = self.response(200, body, content_type=content_type, headers={name: name for name in headers})

        def decorate(view: View) -> View:
            return _described(view, by=lambda blank: self.doc(operationId=view.__name__)(respond(blank)))

        return decorate

    def without_parameters(self, view: View) -> View:
        """Refuse every query parameter (422). For views with neither a query schema nor a JSON body, which refuse by
        themselves.
        """

        @wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            refuse_parameters(request)
            return view(*args, **kwargs)

        return wrapper  # type: ignore[return-value]  # has the view's signature

    def idempotent(self, view: View) -> View:
        """Document the idempotency key."""
        return self._document_headers(view, "Idempotency-Key", "X-Idempotency-Key")

    def conditional(self, view: View) -> View:
        """Document If-Match."""
        return self._document_headers(view, "If-Match")

    def cacheable(self, view: View) -> View:
        """Document If-None-Match."""
        unchanged = self.alt_response(304, headers={"ETag": "ETag", "Vary": "Vary"})
        return self._document_headers(_described(view, by=unchanged), "If-None-Match")

    def _document_headers(self, view: View, *headers: str) -> View:
        return _described(view, by=self.doc(parameters=list(headers)))

    def problems(self, *statuses: int, examples: Mapping[int, Examples] | None = None) -> Callable[[View], View]:
        """Document the error statuses of a view; ``examples`` by status.

        For statuses in ``STATUSES_WITH_EXACT_PROBLEMS`` the examples also say which problems there are.
        """
        examples = examples or {}

        def decorate(view: View) -> View:
            for status in statuses:
                documented = self.alt_response(
                    status,
                    schema=Problem,
                    content_type=_PROBLEM_TYPE,
                    examples=examples.get(status),
                )
                view = _described(view, by=documented)
            return view

        return decorate


def _described(view: View, *, by: Callable[[Callable[..., Any]], Any]) -> View:
    """The view itself, with the documentation of ``by`` added to its own. flask-smorest's own wrapper would cost a call
    per request, and would copy all that the view's other decorators have documented: an eighth of the time of a start.
    """

    def blank() -> None:
        pass

    documented = getattr(view, "_apidoc", {})
    view._apidoc = _joined(documented, by(blank)._apidoc)  # type: ignore[attr-defined]  # noqa: SLF001  # where flask-smorest keeps it
    return view


def _joined(documented: Any, more: Any) -> Any:
    """``more`` after what is documented: dicts joined by their keys, lists end to end; anything else is replaced."""
    if isinstance(documented, dict) and isinstance(more, dict):
        return {**documented, **{key: _joined(documented.get(key), part) for key, part in more.items()}}
    if isinstance(documented, list) and isinstance(more, list):
        return [*documented, *more]
    return more


def _describe_problems(doc: dict[str, Any], doc_info: dict[str, Any], **_context: Any) -> dict[str, Any]:
    """Replace the schema of any problem by that of the problems which the examples show."""
    for status in STATUSES_WITH_EXACT_PROBLEMS:
        content = doc["responses"].get(status, {}).get("content", {}).get(_PROBLEM_TYPE, {})
        types = {example["value"]["type"] for example in content.get("examples", {}).values()}
        if types:
            codes = sorted(each.removeprefix("/problems/") for each in types)
            operation = doc_info["manual_doc"]["operationId"]
            name = f"{operation}_{status.name}".title().replace("_", "")
            content["schema"] = schema_of_problems(name, codes)
    return doc


def _describe_headers(doc: dict[str, Any], doc_info: dict[str, Any], **_context: Any) -> dict[str, Any]:
    """Add the headers that follow from the view's decorators and statuses to those that the view documents itself."""
    is_idempotent = "Idempotency-Key" in doc_info.get("manual_doc", {}).get("parameters", [])
    is_limited = HTTPStatus.TOO_MANY_REQUESTS in doc["responses"]
    doc["responses"] = dict(sorted(doc["responses"].items()))
    for status, response in doc["responses"].items():
        names = [*response.get("headers", {}), "X-Request-ID", "Cache-Control"]
        if is_idempotent:
            names += _key_headers(status)
        if is_limited:
            names += ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
        if status == HTTPStatus.UNAUTHORIZED:
            names.append("WWW-Authenticate")
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            names.append("Retry-After")
        response["headers"] = {name: name for name in names}
    return doc


def _key_headers(status: int) -> list[str]:
    if status in _STATUSES_BEFORE_KEY:
        return []
    if status < HTTPStatus.BAD_REQUEST:
        return ["Idempotency-Key", "Idempotent-Replayed"]
    if status == HTTPStatus.PAYMENT_REQUIRED:  # a declined refund is stored and replayed
        return ["Idempotency-Key", "Idempotent-Replayed"]
    if status == HTTPStatus.CONFLICT:  # some are retryable; IDEMPOTENCY_REPLAY=conflict replays as 409
        return ["Idempotency-Key", "Idempotent-Replayed", "Retry-After"]
    return ["Idempotency-Key"]


@cache
def _envelope(data: type[Schema], *, many: bool) -> type[Schema]:
    """The envelope schema; one class per schema, so that it has one name in the OpenAPI document."""
    if many:
        members = {
            "data": fields.List(fields.Nested(data), required=True),
            "meta": fields.Nested(ListMeta, required=True),
        }
        return type(f"{data.__name__}List", (Schema,), members)
    members = {"data": fields.Nested(data, required=True), "message": fields.String(required=True)}
    return type(f"{data.__name__}Response", (Schema,), members)


class ListMeta(Schema):
    """Pagination of a list; ``next_cursor`` is null on the last page."""

    next_cursor = fields.String(required=True, allow_none=True)
    per_page = fields.Integer()


def ok(data: Any, *, message: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A success response: ``{"data": ..., "message": ...}``, with the message in the reader's language."""
    return json_response({"data": data, "message": translate(message)}, status=status, headers=headers)


def json_response(body: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response without the envelope."""
    return JsonResponse(json.dumps(body), status=status, headers=headers)
