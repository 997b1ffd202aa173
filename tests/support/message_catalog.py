"""The translatable texts of the code, and whether a given text is one of them."""

import re
from functools import cache
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from tests.support.databases import ROOT

INDONESIAN = ROOT / "payments_app" / "translations" / "id" / "LC_MESSAGES"

_PLACEHOLDER = re.compile(r"%\(\w+\)s")


def texts_in_code() -> set[str]:
    """Every text that is marked for translation: by ``N_``, as a ``LocalizedMessage``, or by ``_`` in a template."""
    found = extract_from_dir(
        str(ROOT / "payments_app"),
        method_map=[("**.py", "python"), ("**.html", "jinja2")],
        keywords={"N_": None, "LocalizedMessage": None, "_": None},
    )
    return {message for _, _, message, _, _ in found if isinstance(message, str)}


@cache
def indonesian() -> Catalog:
    with Path(INDONESIAN / "messages.po").open("rb") as catalogue:
        return read_po(catalogue, locale="id")


def placeholders(text: str) -> set[str]:
    return set(_PLACEHOLDER.findall(text))


def is_in_catalogue(said: str) -> bool:
    """Whether this English text is in the catalogue, with any values in its placeholders."""
    return any(pattern.fullmatch(said) for pattern in _patterns())


@cache
def _patterns() -> list[re.Pattern[str]]:
    ids = (str(message.id) for message in indonesian() if message.id)
    return [re.compile(".*".join(map(re.escape, _PLACEHOLDER.split(text))), re.DOTALL) for text in ids]
