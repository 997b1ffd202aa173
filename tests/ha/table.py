"""Writes the tables of outages into the documents, from the figures of the tests: ``python -m tests.ha.table``."""

import json
import os
import re
from pathlib import Path

from tests.ha.faults import ALL_FAULTS
from tests.ha.routes import ROUTES
from tests.support.databases import ROOT

DOCUMENTS = (ROOT / "docs" / "high-availability.md", ROOT / "docs" / "proof.md")

HEAD = """\
| fault | the service reaches the primary by | the engine | payments | the engine, restarted | payments, restarted |
|---|---|---:|---:|---:|---:|
"""


def table(figures: Path) -> str:
    """One row for each fault and route."""
    rows = [
        f"| {fault.what} | {route.text} | {_seconds(figures, route.name, fault.name)} | "
        f"{_seconds(figures, route.name, f'{fault.name}-restarted')} |\n"
        for fault in ALL_FAULTS
        for route in ROUTES
    ]
    return HEAD + "".join(rows)


def _seconds(figures: Path, route: str, name: str) -> str:
    read = json.loads((figures / f"ha-{route}-{name}-outage.json").read_text())
    return f"{read['engine_seconds']} | {read['service_seconds']}"


def lost(figures: Path) -> str:
    """What was lost without synchronous standbys."""
    read = json.loads((figures / "ha-without-synchronous-mode.json").read_text())
    return f"{read['lost']} of {read['acknowledged']} acknowledged changes were gone"


def replaced(text: str, name: str, written: str) -> str:
    """The document with what the command writes between its two marks."""
    marks = re.compile(rf"(<!-- written by make prove-ha: {name} -->).*?(<!-- end -->)", flags=re.DOTALL)
    return marks.sub(lambda match: match[1] + written + match[2], text)


def main() -> None:
    figures = Path(os.environ.get("PROOF_FIGURES", "instance/proof"))
    for document in DOCUMENTS:
        text = replaced(document.read_text(), "outages", "\n" + table(figures))
        document.write_text(replaced(text, "lost", lost(figures)))


if __name__ == "__main__":
    main()
