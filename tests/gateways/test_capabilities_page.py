"""docs/gateways.md says what the code says of each gateway."""

import re
from typing import Any

import pytest
from flask import Flask

from payments_app.gateways.capabilities import FOREVER_SECONDS, Capabilities, Refundable
from tests.support.apps import app_with
from tests.support.databases import ROOT, Database

PAGE = ROOT / "docs" / "gateways.md"
KEYS = {"STRIPE_API_KEY": "sk_test_1", "PAYMONGO_API_KEY": "sk_test_1"}


def documented() -> dict[str, dict[str, str]]:
    """What the page says, by gateway and capability."""
    head, _, *rows = re.search(r"^\| capability.*?\n\n", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0].splitlines()  # type: ignore[index]  # it is there
    gateways = re.findall(r"`(\w+)`", head)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row]
    return {gateway: {name: values[column] for name, *values in cells} for column, gateway in enumerate(gateways)}


def span(seconds: int) -> str:
    if seconds == FOREVER_SECONDS:
        return "always"
    return f"{seconds // 3600} h" if seconds % 3600 == 0 else f"{seconds // 60} min"


def in_words(has: Capabilities) -> dict[str, str]:
    def yes(value: bool) -> str:
        return "yes" if value else "no"

    limited = [f"{code} ({how})" for code, how in sorted(has.methods.items()) if how is not Refundable.IN_PARTS]
    keys = has.remembers_keys_seconds
    return {
        "methods": ", ".join(sorted(has.methods)),
        "methods refunded whole only, or not at all": ", ".join(limited) or "none",
        "currencies": "all in hundredths" if has.currencies is None else ", ".join(sorted(has.currencies)),
        "checkout": has.checkout,
        "gateway keys are remembered for": "no time" if keys is None else span(keys),
        "shortest and longest session": " and ".join(map(span, has.session_seconds or ())) or "no end",
        "a session can be ended": yes(has.ends_sessions),
        "can be asked what was paid": yes(has.can_be_asked),
        "moves money": yes(has.moves_money),
    }


@pytest.fixture
def gateways(database: Database) -> dict[str, Any]:
    with app_with(database.url, **KEYS) as app:
        return dict(_gateways_of(app))


def _gateways_of(app: Flask) -> dict[str, Any]:
    return {str(name): gateway for name, gateway in app.extensions["gateways"].items()}


def test_the_page_has_every_gateways_capabilities(gateways: dict[str, Any]) -> None:
    assert documented() == {name: in_words(gateway.capabilities) for name, gateway in gateways.items()}
