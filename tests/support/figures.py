"""Numbers that a proof produces, for the page that quotes them."""

import json
import os
from pathlib import Path


def note(name: str, **figures: object) -> None:
    """Keep them as ``<name>.json`` in the folder that ``PROOF_FIGURES`` names; without it, nowhere."""
    if folder := os.environ.get("PROOF_FIGURES"):
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
