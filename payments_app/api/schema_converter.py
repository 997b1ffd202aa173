"""How marshmallow's schemas become schemas of the OpenAPI document, as far as apispec does not know it."""

from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema
from marshmallow.fields import Field

from payments_app.api.enums import Enumeration, EnumField, NamedEnum


class SchemaConverter(OpenAPIConverter):
    """apispec's converter, with named enumerations, constants, and two attributes of a schema.

    ``rules``: rules between fields, which only code checks. ``alternatives``: the schema is one of these, by ``type``.
    """

    def schema2jsonschema(self, schema: Schema) -> dict[str, Any]:
        alternatives: dict[str, type[Schema]] | None = getattr(schema, "alternatives", None)
        if alternatives is not None:
            refs = {value: self._reference(each) for value, each in alternatives.items()}
            mapping = {value: ref["$ref"] for value, ref in refs.items()}
            return {"oneOf": [*refs.values()], "discriminator": {"propertyName": "type", "mapping": mapping}}
        described: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]  # apispec's
        return {**described, **getattr(schema, "rules", {})}

    def field2property(self, field: Field[Any]) -> dict[str, Any]:
        described = super().field2property(field)
        match field:
            case EnumField():
                return _refer([self._name_of(field.enumeration)], described, nullable=field.allow_none)
            case NamedEnum():
                return _refer(list(field.names), described, nullable=field.allow_none)
        if len(described.get("enum", ())) == 1:
            described["const"] = described.pop("enum")[0]
        return described

    def _reference(self, schema: type[Schema]) -> dict[str, str]:
        reference: dict[str, str] = self.resolve_nested_schema(schema)  # type: ignore[no-untyped-call]  # apispec's
        return reference

    def _name_of(self, enumeration: Enumeration) -> str:
        """The enumeration's name; its schema is in the document then."""
        schema: dict[str, Any] = {"type": "string", "enum": [*enumeration.values]}
        if enumeration.description is not None:
            schema["description"] = enumeration.description
        known = self.spec.components.schemas.get(enumeration.name)
        if known is None:
            self.spec.components.schema(enumeration.name, schema)
        elif known != schema:
            raise ValueError(f"two enumerations have the name {enumeration.name}")
        return enumeration.name


class SchemaPlugin(MarshmallowPlugin):
    Converter = SchemaConverter


def _refer(names: list[str], described: dict[str, Any], *, nullable: bool) -> dict[str, Any]:
    """References to schemas by name, with what else is described; null is one more schema."""
    schemas: list[dict[str, Any]] = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    if nullable:
        schemas.append({"type": "null"})
    rest = {key: value for key, value in described.items() if key not in ("type", "enum")}
    return {**schemas[0], **rest} if len(schemas) == 1 else {"anyOf": schemas, **rest}
