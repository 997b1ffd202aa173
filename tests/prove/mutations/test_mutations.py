"""A service that is broken in one place fails those of its tests that docs/proof.md names, and for the right reason."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.prove.mutations.mutations import MUTATIONS, TESTS, Mutation
from tests.support.databases import ROOT, start_postgresql
from tests.support.recorded_figures import note

PAGE = ROOT / "docs" / "proof.md"
HEADING = "\n## That these tests can fail\n"

# Twenty times as long as the longest takes on two cores.
TIMEOUT_SECONDS = 300

# Of our folder, what no test reads; of our environment, what would choose other tests, seeds or a place for figures.
NOT_COPIED = shutil.ignore_patterns(".*", "instance", "__pycache__")
NOT_INHERITED = re.compile("PYTEST_.*|PROOF_.*|SCHEDULE|POINT")

# What a test says that has noticed: not what it expected, or a CHECK of the database had to stop it. An error of any
# other kind would be one of the mutation itself.
NOTICED = re.compile(r"^FAILED (\S+) - ((?:assert|AssertionError|sqlalchemy\.exc\.IntegrityError)\b.*)", re.MULTILINE)


def test_the_page_names_each_mutation_and_what_notices() -> None:
    section = PAGE.read_text().partition(HEADING)[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]

    assert [(name, tests.partition(";")[0]) for name, tests in rows[1:]] == [
        (mutation.name, ", ".join(mutation.noticed_by)) for mutation in MUTATIONS
    ]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_each_mutation_still_fits(mutation: Mutation) -> None:
    for edit in mutation.edits:
        assert edit.fitting(ROOT)


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_broken_service_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(ROOT, broken, ignore=NOT_COPIED)
    for edit in mutation.edits:
        edit.make(broken)

    ended = run_tests(broken, mutation.noticed_by + mutation.missed_by)

    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout + ended.stderr
    failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.MULTILINE))
    said = dict(NOTICED.findall(ended.stdout))
    assert failed == said.keys() == {TESTS[words] for words in mutation.noticed_by}, ended.stdout
    note(f"mutations-{mutation}", **{words: said[TESTS[words]] for words in mutation.noticed_by})


def run_tests(project: Path, words: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, with a database of its own on our server: that saves the start of one."""
    chosen = [TESTS[each] for each in words]
    length = ["--long"] if any("--long" in each for each in words) else []
    environment = {name: value for name, value in os.environ.items() if not NOT_INHERITED.fullmatch(name)}
    environment |= {
        "TEST_DATABASE_URL": os.environ.get("TEST_DATABASE_URL") or start_postgresql(),
        "COLUMNS": "400",  # so that the summary says why each has failed
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", *length, *chosen],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
