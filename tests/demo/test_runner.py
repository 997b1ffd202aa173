"""The processes of ``demo run`` end together, whichever ends first and for whatever reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from payments_app.demo import runner
from payments_app.demo.runner import Program
from tests.support.databases import ROOT
from tests.support.service import children_of
from tests.support.waiting import wait_until

LASTING = Program(
    name="A server", command=("http.server", "0", "--bind", "127.0.0.1"), folder=ROOT / "docs", environment={}
)
FAILING = Program(name="Another one", command=("there_is_no_such_module",), folder=ROOT, environment={})

RUN_TWO = """
from pathlib import Path
from payments_app.demo.runner import Program, run
command = ("http.server", "0", "--bind", "127.0.0.1")
server = Program(name="A server", command=command, folder=Path("docs"), environment={})
run([server, server])
"""


def test_if_one_ends_all_do_and_it_is_said_which(capfd: pytest.CaptureFixture[str]) -> None:
    before = children_of(os.getpid())

    ended = runner.run([LASTING, FAILING])

    assert ended == "Another one has ended (exit status 1), so all other processes were ended."
    assert children_of(os.getpid()) == before
    assert "there_is_no_such_module" in capfd.readouterr().err


def test_none_outlives_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", RUN_TWO], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(children_of(process.pid)) == 2)
        children = children_of(process.pid)

        process.kill()

    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
