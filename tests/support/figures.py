"""Figures that a proof produced, kept where somebody wants to quote them."""

import json
import os
from pathlib import Path
from typing import Any


def note(name: str, **figures: Any) -> None:
    """Write them to ``<name>.json`` in the folder that ``PROOF_FIGURES`` names; nowhere where it names none."""
    folder = os.environ.get("PROOF_FIGURES")
    if folder is None:
        return
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
