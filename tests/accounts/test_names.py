"""Which texts are names, by the code and by the pattern of the document."""

import re

import pytest

from payments_app.accounts import names


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("Maria Santos", True),
        (" \u00d1 ", True),
        ("\u4b64\U0001f600", True),
        ("a\u200eb\u200d", True),
        ("   ", False),
        ("a\nb", False),
        ("a\x9bb", False),
        ("a\u2028b", False),
        ("a\u202eb", False),
        ("a\u2066b", False),
    ],
)
def test_the_document_and_the_code_take_the_same_names(name: str, is_one: bool) -> None:  # a parameter
    assert names.is_name(name) is is_one
    assert bool(re.search(names.PATTERN, name)) is is_one
