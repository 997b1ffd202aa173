"""Starts Python programs by forking a process that has already imported the service's packages.

Three quarters of a start are imports. For tests of what the service does; those of how it starts run it as an operator
would.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import TimeoutExpired

from tests.support.databases import ROOT

# It imports these once for each process of pytest, at the first start, and ends with it.
_FORK_SERVER = multiprocessing.get_context("forkserver")
_FORK_SERVER.set_forkserver_preload(["payments_app", "gunicorn.app.wsgiapp", "gunicorn.workers.gthread"])

# What the interpreter and the loader read at its start, so that a process which has started already cannot be given it.
READ_AT_ITS_START = {"LD_PRELOAD", "PYTHONPATH"}


def start_python(
    module: str, *arguments: str, environment: Mapping[str, str], output: Path
) -> "subprocess.Popen[bytes] | WarmProcess":
    """``python -m module arguments`` in the project's folder, by a fork if the environment allows it."""
    output.touch()  # it may be read before the process opens it
    if not environment.keys() & READ_AT_ITS_START:
        return WarmProcess(module, *arguments, environment=environment, output=output)
    command = [sys.executable, "-m", module, *arguments]
    with output.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)


class WarmProcess:
    """What ``python -m module arguments`` would be, in the project's folder, with this environment and no other.

    Its output goes into the file. It has the methods of ``subprocess.Popen`` that tests need.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str], output: Path) -> None:
        work = (module, arguments, dict(environment), output)
        # daemon: it is ended if the tests are stopped.
        self._process = _FORK_SERVER.Process(target=_run, args=work, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code; below 0, the signal that ended it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """The exit code; TimeoutExpired if it has not ended within so many seconds."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise TimeoutExpired(self._process.name, timeout)
        return code


def _run(module: str, arguments: tuple[str, ...], environment: dict[str, str], output: Path) -> None:
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    with output.open("wb") as file:
        for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(file.fileno(), descriptor)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
