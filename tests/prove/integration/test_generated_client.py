"""A client that openapi-python-client makes of the document imports, type-checks, and does as docs/openapi.md says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.apps import app_with
from tests.support.client import client_of
from tests.support.databases import ROOT, Database
from tests.support.dialects import on_postgresql
from tests.support.people import PASSWORD, People
from tests.support.service import Service

# What the generator calls the package, by the document's title.
PACKAGE = "consultation_payments_client"

# The generator formats what it made with ruff, which it looks up in PATH.
WITH_OUR_PROGRAMS = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

# The documented program pays this one. The client is the same on each database.


def run(*arguments: str, cwd: Path, **environment: str) -> str:
    """What a Python program prints; it must succeed."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**WITH_OUR_PROGRAMS, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the generated project. A warning of the generator, as of a part that it left out, is a failure."""
    folder = tmp_path_factory.mktemp("generated")
    with app_with("sqlite:///unused.db") as app:
        document = client_of(app).get("/openapi.json").data
    (folder / "openapi.json").write_bytes(document)
    # As docs/openapi.md says: the generator knows bytes by this type alone.
    (folder / "config.yml").write_text("content_type_overrides:\n  application/pdf: application/octet-stream\n")
    command = ("-m", "openapi_python_client", "generate", "--path", "openapi.json", "--config", "config.yml")
    run(*command, "--fail-on-warning", "--output-path", "project", cwd=folder)
    return folder / "project"


@pytest.fixture
def program(generated: Path) -> str:
    """The name of the file with the program of docs/openapi.md, next to the generated package."""
    (text,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/openapi.md").read_text(), re.DOTALL)
    (generated / "program.py").write_text(text)
    return "program.py"


def test_every_module_can_be_imported(generated: Path) -> None:
    modules = [
        ".".join(path.relative_to(generated).with_suffix("").parts) for path in (generated / PACKAGE).rglob("*.py")
    ]
    run("-c", f"import importlib; [importlib.import_module(name) for name in {modules}]", cwd=generated)

    assert len(modules) > 100


@pytest.mark.long  # what does not fit fails in the next test too, as far as the program goes
def test_the_client_and_a_program_that_uses_it_type_check(generated: Path, program: str) -> None:
    # Without our settings, which would be found in no folder above this one anyway, but perhaps in the user's own.
    run("-m", "mypy", "--strict", "--config-file", "", "--cache-dir", "cache", PACKAGE, program, cwd=generated)


@on_postgresql
def test_the_documented_program_pays_refunds_and_reads_the_feed(
    database: Database, people: People, generated: Path, program: str
) -> None:
    with Service.started(database.url, 1) as service:
        users = {"PATIENT": people.patient.email, "ADMIN": people.admin.email, "PASSWORD": PASSWORD}
        printed = run(program, cwd=generated, API=service.url, **users)
        again = run(program, cwd=generated, API=service.url, **users)

    assert printed.splitlines() == [
        "created: 5000 PHP, pending",
        "409: this payment exists, and is pending",
        "confirmed: completed, invoice paid",
        "refunded: 1500.5, partially_refunded",
        "feed: payment.created, pending, refund 0",
        "feed: payment.completed, completed, refund 0",
        "feed: refund.requested, completed, refund 1500.5",
        "feed: refund.succeeded, partially_refunded, refund 1500.5",
    ]
    assert again == printed.replace("exists, and is pending", "exists, and is partially_refunded")
    assert json.loads(people.admin.get("/payments").text)["data"][0]["refunded_amount"] == 1500.5
