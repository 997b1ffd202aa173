"""The blueprint whose decorators state a view's contract, and the shape of a success."""

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, NoReturn, TypeVar

import flask_smorest
from flask import Request, Response, json
from marshmallow import Schema, fields
from marshmallow import ValidationError as MarshmallowError
from webargs.flaskparser import FlaskParser

from payments_app.api.json_body import read_json
from payments_app.errors import ValidationFailed

View = TypeVar("View", bound=Callable[..., Any])


class StrictParser(FlaskParser):
    """webargs with our reader of JSON, and with our error instead of its own nested one."""

    def load_json(self, req: Request, schema: Schema) -> Any:
        return read_json(req)

    def load_json_or_form(self, req: Request, schema: Schema) -> Any:
        if req.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
            return self.load_form(req, schema)
        return read_json(req)

    def handle_error(self, error: MarshmallowError, *_args: Any, **_kwargs: Any) -> NoReturn:
        located = error.messages
        messages = {name: text for part in located.values() for name, text in part.items()}  # type: ignore[union-attr]  # webargs always nests
        raise ValidationFailed(dict(_flat(messages)))


def _flat(messages: dict[Any, Any], prefix: str = "") -> list[tuple[str, list[str]]]:
    """Field -> texts, with the path of a nested field joined by dots."""
    rows: list[tuple[str, list[str]]] = []
    for name, value in messages.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{path}."))
        else:
            rows.append((path, [str(text) for text in value]))
    return rows


class Problem(Schema):
    """RFC 9457 problem details, as ``errors.py`` renders them."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    instance = fields.String(required=True)
    message = fields.String(required=True)
    retryable = fields.Boolean(required=True)
    request_id = fields.String(required=True)
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))
    data = fields.Dict()


class Blueprint(flask_smorest.Blueprint):
    """flask-smorest's blueprint with strict arguments and our envelope in the document."""

    ARGUMENTS_PARSER = StrictParser()
    DEFAULT_LOCATION_CONTENT_TYPE_MAPPING: ClassVar[dict[str, str]] = {
        **flask_smorest.Blueprint.DEFAULT_LOCATION_CONTENT_TYPE_MAPPING,
        "json_or_form": "application/json",
    }

    def success_response(
        self, status: int, data: type[Schema], *, many: bool = False, **documentation: Any
    ) -> Callable[[View], View]:
        """Document a success: ``{"data": ..., "message": ...}``, or for many ``{"data": [...], "meta": {...}}``."""
        envelope = _envelope(data, many=many)
        decorate: Callable[[View], View] = self.response(status, envelope, **documentation)
        return decorate

    def idempotent(self, view: View) -> View:
        """Document the idempotency key."""
        described = "One key for one intention: send it again to get the first answer again. Made where absent."
        key = {"name": "Idempotency-Key", "in": "header", "description": described, "schema": {"type": "string"}}
        return self._documented(view, key)

    def conditional(self, view: View) -> View:
        """Document If-Match."""
        described = "The ETag of the payment as the caller knows it; 412 where it has changed since."
        return self._documented(
            view, {"name": "If-Match", "in": "header", "description": described, "schema": {"type": "string"}}
        )

    def _documented(self, view: View, parameter: dict[str, Any]) -> View:
        documented: View = self.doc(parameters=[parameter])(view)
        return documented

    def problems(self, *statuses: int) -> Callable[[View], View]:
        """Document the error statuses of a view."""

        def decorate(view: View) -> View:
            for status in statuses:
                view = self.alt_response(status, schema=Problem, content_type="application/problem+json")(view)
            return view

        return decorate


@cache
def _envelope(data: type[Schema], *, many: bool) -> type[Schema]:
    """One class for each schema, so that the document has one name for it."""
    if many:
        members = {"data": fields.List(fields.Nested(data), required=True), "meta": fields.Nested(Meta, required=True)}
        return type(f"{data.__name__}List", (Schema,), members)
    members = {"data": fields.Nested(data, required=True), "message": fields.String(required=True)}
    return type(f"{data.__name__}Answer", (Schema,), members)


class Meta(Schema):
    """Where a list goes on."""

    next_cursor = fields.String(required=True, allow_none=True)
    per_page = fields.Integer()


def success(data: Any, *, message: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in the envelope of a single thing."""
    return json_answer({"data": data, "message": message}, status=status, headers=headers)


def json_answer(body: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer without an envelope."""
    return Response(json.dumps(body), status=status, headers=headers, mimetype="application/json")
