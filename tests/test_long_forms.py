"""A test with a long form is of use only if somebody runs that form."""

import re
import subprocess
from pathlib import Path

from tests.support.databases import ROOT

HAS_LONG_FORM = re.compile(r"\b(is_long|effort|mark\.long)\b")


def test_make_runs_every_long_form() -> None:
    targets = ["prove", "prove-ha"]
    recipes = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in recipes.stdout.replace("\\\n", "").splitlines() if "--long" in line]
    assert len(lines) == len(targets)
    run = [ROOT / word for line in lines for word in line.split() if word.startswith("tests/")]

    def is_run(file: Path) -> bool:
        return any(path == file or path in file.parents for path in run)

    files = [file for file in (ROOT / "tests").rglob("test_*.py") if HAS_LONG_FORM.search(file.read_text())]
    assert len(files) > len(run)
    assert [str(file) for file in files if file != Path(__file__) and not is_run(file)] == []
