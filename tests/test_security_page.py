"""docs/security.md names a test for each threat; each of them is there."""

import re

from tests.support.databases import ROOT

PAGE = ROOT / "docs" / "security.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_threat_names_tests_that_exist() -> None:
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    threats = {row[0].strip(): NAMED.findall(row[-1]) for row in rows if set(row[0].strip()) - set("-") and row[2:]}
    threats.pop("threat")

    assert [threat for threat, tests in threats.items() if not tests] == []
    assert len(threats) > 15
    for path, name in NAMED.findall(PAGE.read_text()):
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), flags=re.MULTILINE), f"{path}::{name}"
