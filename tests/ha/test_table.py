"""The documents have the tables that ``make prove-ha`` writes."""

from pathlib import Path

import pytest

from tests.ha.faults import ALL_FAULTS
from tests.ha.routes import ROUTES
from tests.ha.table import DOCUMENTS, HEAD


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_fault_has_a_row_for_each_route(document: Path) -> None:
    text = document.read_text()

    assert HEAD in text
    assert {fault.name: text.count(f"\n| {fault.what} | ") for fault in ALL_FAULTS} == {
        fault.name: len(ROUTES) for fault in ALL_FAULTS
    }
