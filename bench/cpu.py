"""Measures processor time of the client, the service and the database."""

import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import psutil


@dataclass
class CpuMeter:
    """Processor time in seconds since the last ``begin``: of this process (the client) and of named process trees.

    ``trees``: the pid of the root process by name.
    """

    trees: Mapping[str, int]
    _before: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._before = self._now()

    def spent(self) -> dict[str, float]:
        return {name: seconds - self._before[name] for name, seconds in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {"client": _of_client(), **{name: _of_tree(pid) for name, pid in self.trees.items()}}


def _of_client() -> float:
    """This process, and the children that it has waited for, such as pgbench."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _of_tree(pid: int) -> float:
    """A process and its descendants; the time of ended ones counts for their parent."""
    parent = psutil.Process(pid)
    seconds = 0.0
    for process in [
        *parent.children(recursive=True),
        parent,
    ]:  # the parent last: it includes ended children
        with suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:4])
    return seconds
