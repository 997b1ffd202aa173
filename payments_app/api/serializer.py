"""``Schema.dump`` for shapes whose members are all always there, without what marshmallow does for those that are not.

The schema stays the one description of a shape, also for the OpenAPI document; only the way through it is shorter.
"""

from collections.abc import Callable, Iterator
from typing import Any

from marshmallow import Schema, fields

# What these give is what they are given: a column of their own type.
_AS_IT_IS = (fields.Integer, fields.String, fields.Boolean)

Get = Callable[[Any, str], Any]
Render = Callable[[Any], Any]


def renderer(schema: Schema, get: Get = getattr) -> Callable[[Any], dict[str, Any]]:
    """What ``schema.dump`` does with one row. ``get``: how to come by a member, ``operator.getitem`` for dicts."""
    plan = list(_plan(schema, get))

    def render(row: Any) -> dict[str, Any]:
        return {
            name: get(row, source) if convert is None else convert(get(row, source)) for name, source, convert in plan
        }

    return render


def _plan(schema: Schema, get: Get) -> Iterator[tuple[str, str, Render | None]]:
    for name, field in schema.dump_fields.items():
        yield name, field.attribute or name, _converter(field, get)


def _converter(field: fields.Field[Any], get: Get) -> Render | None:
    if isinstance(field, fields.Nested):
        return renderer(field.schema, get)
    if isinstance(field, fields.List):
        render = _converter(field.inner, get)
        return None if render is None else lambda values: [render(value) for value in values]
    if isinstance(field, _AS_IT_IS):
        return None
    return lambda value: field._serialize(value, None, None)  # noqa: SLF001  # what a field of ours is made of
