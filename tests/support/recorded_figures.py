"""What a proof has counted, for docs/proof.md to quote."""

import json
import os
from pathlib import Path


def note(name: str, **figures: object) -> None:
    """Write the figures to ``<name>.json`` in the folder that PROOF_FIGURES names; without one, nowhere."""
    folder = os.environ.get("PROOF_FIGURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
