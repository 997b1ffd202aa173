"""Only adapters know what a gateway is called: everything else asks its capabilities."""

import ast

import pytest

from payments_app.gateways.base import GatewayName
from tests.support.databases import ROOT

PACKAGE = ROOT / "payments_app"

# The list of pages; documents and examples for readers; the logger of a library.
MAY_NAME_THEM = {"__init__.py", "api/examples.py", "api/problem_catalog.py", "observability/logging.py"}
FOLDERS_OF_GATEWAYS = ("gateways/", "sandbox/")
NAMES = {str(name) for name in GatewayName}
# ``payment_manual_ttl_seconds`` is a setting, and named for people.
CALLED = NAMES - {"manual"}
ADAPTERS = tuple(f"payments_app.gateways.{name}" for name in NAMES)


def modules() -> list[str]:
    paths = (str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
    return sorted(path for path in paths if path not in MAY_NAME_THEM and not path.startswith(FOLDERS_OF_GATEWAYS))


def names_in(tree: ast.AST) -> list[str]:
    """Constants, attributes, names and imports that name a gateway. A method that is called as one is no gateway."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(value)) if value in NAMES:
                found.append(value)
            case ast.Attribute(attr=name) | ast.Name(id=name) if name == "GatewayName" or CALLED & set(name.split("_")):
                found.append(name)
            case ast.ImportFrom(module=str(module)) if module.startswith(ADAPTERS):
                found.append(module)
    return found


def example_of_a_method(tree: ast.AST) -> list[str]:
    """The value of ``metadata={"example": "stripe"}``: a payment method's code."""
    return [
        value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant)
        and key.value == "example"
        and isinstance(value, ast.Constant)
        and isinstance(value.value, str)
    ]


@pytest.mark.parametrize("module", modules())
def test_no_module_outside_gateways_names_one(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text())

    named = names_in(tree)
    for example in example_of_a_method(tree):
        if example in named:
            named.remove(example)

    assert named == []
