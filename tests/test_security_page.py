"""docs/security.md names tests for each threat; that they are there, test_documents.py sees."""

import re

from tests.support.databases import ROOT

PAGE = ROOT / "docs" / "security.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_threat_names_its_tests() -> None:
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    threats = {row[0].strip(): NAMED.findall(row[-1]) for row in rows if set(row[0].strip()) - set("-") and row[2:]}
    threats.pop("threat")

    assert [threat for threat, tests in threats.items() if not tests] == []
    assert len(threats) > 15
