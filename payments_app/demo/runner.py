"""The processes of the demo, which begin and end together."""

import os
import subprocess  # nosec B404  # starts our own interpreter, without a shell
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from payments_app import child_process

# Seconds between two looks at the processes.
LOOK_SECONDS = 0.2

# Seconds that all have to end; as long as gunicorn waits for its requests (``graceful_timeout``), and a little.
STOP_SECONDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A module of Python with its arguments. ``name``: how a message calls it."""

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]


def run(programs: Sequence[Program]) -> str:
    """Run all until one of them ends; then end the others, and return a sentence about the first.

    An exception, such as KeyboardInterrupt, ends all of them too.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.extend(map(_start, programs))
        while True:
            for program, process in zip(programs, processes, strict=True):
                if (status := process.poll()) is not None:
                    return f"{program.name} has ended ({_described(status)}), so all other processes were ended."
            time.sleep(LOOK_SECONDS)
    finally:
        _end(processes)


def _start(program: Program) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  # our own interpreter and modules
        child_process.command(*program.command),
        cwd=program.folder,
        env={**os.environ, **program.environment},
        stdin=subprocess.DEVNULL,
        # Ctrl-C must only reach this process, which then ends all.
        start_new_session=True,
    )


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    try:
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            process.wait(max(0, deadline - time.monotonic()))
    finally:  # too slow, or Ctrl-C again
        for process in processes:
            process.kill()


def _described(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
