"""Fields for members with a fixed set of values.

The OpenAPI document has each set once, under a name of its own, so that a generated client has one type for it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from marshmallow import fields

from payments_app.api.fields import OneOf


@dataclass(frozen=True, slots=True)
class Enumeration:
    """A set of values; ``name`` is that of its schema in the OpenAPI document."""

    name: str
    values: tuple[str, ...]
    description: str | None = None

    @classmethod
    def of(cls, enum: type[StrEnum], description: str | None = None) -> Self:
        """The values of a Python enum, under its name."""
        return cls(enum.__name__, tuple(map(str, enum)), description)


class EnumField(fields.String):
    """One of the values of an enumeration; anything else is refused when it is loaded."""

    def __init__(self, enumeration: Enumeration, **kwargs: Any) -> None:
        super().__init__(validate=OneOf(enumeration.values), **kwargs)
        self.enumeration = enumeration


class NamedEnum(fields.String):
    """A value of one of the enumerations with these names, for responses only.

    For rooms below the one whose schemas have the enumeration, which cannot import it.
    """

    def __init__(self, *names: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = names
