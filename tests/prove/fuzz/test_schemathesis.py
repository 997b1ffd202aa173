"""Requests made from the document, good and bad, by Schemathesis: no 5xx, and every answer is as the document says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import ROOT, Database
from tests.support.dialects import on_postgresql
from tests.support.links import payer_of
from tests.support.people import People
from tests.support.recorded_figures import note
from tests.support.service import Service

HERE = Path(__file__).parent

SCHEMATHESIS = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]

# What Schemathesis thinks of, of each operation, in the short form.
EXAMPLES = 3
# So much more than other proofs the long form tries.
LONG_FACTOR = 2
# "coverage" tries each border of each member, which takes as long as all else: in the long form alone.
SHORT_PHASES = "examples,fuzzing"
LONG_PHASES = "examples,coverage,fuzzing,stateful"
# What is tried at the least, as each of them.
LEAST_REQUESTS = {"patient": 40, "admin": 40, "payer": 10}


@pytest.fixture(scope="module")
def running(database: Database) -> Iterator[Service]:
    with Service.started(database.url) as service:
        yield service


@pytest.fixture
def fuzzed(running: Service, people: People) -> Service:
    """A gunicorn, and a few payments to hit upon: ids are drawn from 1 up."""
    for consultation_id in range(1, 6):
        people.patient.pay(consultation_id)
    return running


@on_postgresql  # what production has
# A payer may do little, and the corpus goes to each endpoint as a payer too.
@pytest.mark.parametrize("who", ["patient", "admin", pytest.param("payer", marks=pytest.mark.long)])
def test_every_answer_matches_the_document(  # noqa: PLR0917  # fixtures
    fuzzed: Service, people: People, who: str, effort: int, seed: int, tmp_path: Path
) -> None:
    person = payer_of(people) if who == "payer" else getattr(people, who)
    times = effort if effort == 1 else LONG_FACTOR * effort
    report = tmp_path / "report.json"
    options = {
        "--url": fuzzed.url,
        "--header": f"Authorization: {person.authorization['Authorization']}",
        "--checks": "all",
        "--phases": SHORT_PHASES if effort == 1 else LONG_PHASES,
        "--max-examples": str(EXAMPLES * times),
        "--workers": "1",
        "--seed": str(seed),
        "--generation-database": "none",
        "--report-json-path": str(report),
    }
    arguments = [argument for option in options.items() for argument in option]

    run = subprocess.run(
        [*SCHEMATHESIS, "run", f"{fuzzed.url}/openapi.json", "--no-color", "--continue-on-failure", *arguments],
        cwd=tmp_path,  # where it may remember what has failed: the next run is to try the same
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # for our checks
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, f"{run.stdout}{run.stderr}"
    tried = json.loads(report.read_text())["test_cases"]["generated"]
    assert tried >= LEAST_REQUESTS[who]
    assert "Traceback" not in fuzzed.log.read_text()
    note(f"schemathesis-{who}", seed=seed, requests=tried)
