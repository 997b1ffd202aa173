"""A faster ``Schema.dump`` and ``Schema.dumps``, for schemas whose members are always present.

The schema stays the only description of a response, also for the OpenAPI document.
"""

import json
from collections.abc import Callable
from functools import partial
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from typing import Any

from marshmallow import Schema, fields

from payments_app.api.fields import Amount, UtcDateTimeField
from payments_app.clock import to_text
from payments_app.money import to_json_number

# Fields that return the value unchanged: the column has the same type.
_UNCHANGED = (fields.Integer, fields.String, fields.Boolean)

# Makes a function that reads several members of a row at once: ``attrgetter``, or ``itemgetter`` for dicts.
Getter = Callable[..., Callable[[Any], Any]]
Render = Callable[[Any], Any]


def renderer(schema: Schema, getter: Getter = attrgetter) -> Callable[[Any], dict[str, Any]]:
    """A function that dumps one row like ``schema.dump``."""
    members, read = schema.dump_fields, _reader(schema, getter)
    converters = [(name, convert) for name, field in members.items() if (convert := _converter(field, getter))]

    def render(row: Any) -> dict[str, Any]:
        rendered = dict(zip(members, read(row), strict=False))
        for name, convert in converters:
            if (value := rendered[name]) is not None:  # every field dumps None as None
                rendered[name] = convert(value)
        return rendered

    return render


def _reader(schema: Schema, getter: Getter) -> Callable[[Any], Any]:
    """Reads the values of all members from a row, and one value more: of a single name a getter makes no tuple."""
    sources = [field.attribute or name for name, field in schema.dump_fields.items()]
    return getter(*sources, sources[0])


def _converter(field: fields.Field[Any], getter: Getter) -> Render | None:
    if isinstance(field, fields.Nested):
        return renderer(field.schema, getter)
    if isinstance(field, fields.List):
        render = _converter(field.inner, getter)
        return None if render is None else lambda values: [render(value) for value in values]
    if isinstance(field, _UNCHANGED):
        return None
    return partial(field._serialize, attr=None, obj=None)  # noqa: SLF001  # our own fields implement it


def text_renderer(schema: Schema) -> Callable[[Any], str]:
    """A function that dumps one row as JSON text.

    For lists: to make the dicts of a page, and to encode them, takes longer than anything else that a page needs.
    """
    members, read = schema.dump_fields, _reader(schema, attrgetter)
    template = "{" + ", ".join(f"{json.dumps(name)}: %s" for name in members) + "}"
    encoders = [_encoder(field) for field in members.values()]

    def render(row: Any) -> str:
        values = zip(read(row), encoders, strict=False)
        return template % tuple(["null" if value is None else encode(value) for value, encode in values])

    return render


# The JSON text of a value that is not None, by the kind of its field.
_ENCODERS: tuple[tuple[type[fields.Field[Any]], Callable[[Any], str]], ...] = (
    (fields.Integer, str),
    (fields.String, encode_basestring_ascii),
    (fields.Boolean, {True: "true", False: "false"}.__getitem__),
    (Amount, lambda value: str(to_json_number(value))),
    (UtcDateTimeField, lambda value: f'"{to_text(value)}"'),
)


def _encoder(field: fields.Field[Any]) -> Callable[[Any], str]:
    """Makes the JSON text of a value that is not None."""
    if isinstance(field, fields.Nested):
        return text_renderer(field.schema)
    encode = next((encode for kind, encode in _ENCODERS if isinstance(field, kind)), None)
    if encode is not None:
        return encode
    convert = _converter(field, attrgetter)
    return json.dumps if convert is None else lambda value: json.dumps(convert(value))
