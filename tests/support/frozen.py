"""Freezes processes of a PostgreSQL, as a host does that hangs: their kernel still answers for them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.waiting import wait_until


def freeze(*pids: int) -> None:
    """Stop processes, and wait until they are stopped: a signal arrives a moment later.

    One that has just ended is as good as stopped; if its parent was stopped first, it stays a zombie.
    """
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(_state(pid) in ("T", "Z", "") for pid in pids))


def thaw(*pids: int) -> None:
    """Let them continue with what has been sent to them meanwhile."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """While the block runs, these processes stand still."""
    freeze(*pids)
    try:
        yield
    finally:
        thaw(*pids)


def wait_until_ended(pid: int) -> None:
    wait_until(lambda: _state(pid) in ("", "Z"))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
