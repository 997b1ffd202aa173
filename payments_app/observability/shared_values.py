"""The values of this process's metrics, published in memory that gunicorn's processes share.

Outside gunicorn nothing is shared, and each process counts for itself.
"""

import logging
import os
import threading
from collections.abc import Iterable, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from payments_app.observability.shared_memory import SharedMemory, Slot, key_of

log = logging.getLogger(__name__)

# Slots for each worker. A reload starts as many new workers before the old ones end, and an old one may still finish a
# request (45 s at most) when the next reload comes. At least 32: a signal adds a worker, whatever the settings say.
SLOTS_PER_WORKER = 4
LEAST_SLOTS = 32


class SharedValue:
    """One number; the metrics of prometheus_client keep theirs in such objects. No method raises an error.

    If the slot is full, or the process has none, it goes on counting for itself, and each count that ``/metrics`` will
    not show is counted as lost.
    """

    def __init__(  # noqa: PLR0917  # as prometheus_client calls it
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "livesum",
        **_more: object,
    ) -> None:
        if multiprocess_mode != "livesum":
            raise ValueError(f"{metric_name}: a gauge is summed over the live processes, which is mode livesum")
        self._key = key_of(typ, metric_name, name, zip(labelnames, labelvalues, strict=True), help_text)
        self._number = 0.0
        self._lock = threading.Lock()
        self._slot: Slot | None = None
        self._cell: int | None = None
        _process.add(self)

    def inc(self, amount: float) -> None:
        with self._lock:
            self._number += amount
            self._publish()

    def set(self, value: float, timestamp: float | None = None) -> None:
        with self._lock:
            self._number = value
            self._publish()

    def get(self) -> float:
        """The number of this process; if its slot had an earlier process, together with that one's."""
        return self._number

    def set_exemplar(self, exemplar: object) -> None:
        """Exemplars are not kept."""

    def get_exemplar(self) -> None:
        """Exemplars are not kept."""

    def publish_in(self, slot: Slot, cell: int | None) -> None:
        """Write to this cell of a slot from now on, and continue its number; without a cell, count as lost."""
        with self._lock:
            self._slot, self._cell = slot, cell
            if cell is not None:
                self._number += slot.numbers[cell]
                self._publish()

    def start_again(self) -> None:
        """In a new process: a thread that only the parent has may hold the lock, and the number is the parent's."""
        self._lock = threading.Lock()
        if self._slot is not None:
            self._number, self._slot, self._cell = 0.0, None, None

    def _publish(self) -> None:
        if self._slot is None:
            return
        if self._cell is None:
            with _process.losing:
                self._slot.lose_one()
        else:
            self._slot.numbers[self._cell] = self._number

    @property
    def key(self) -> bytes:
        return self._key


class _Process:
    """The values of this process, and their slot."""

    def __init__(self) -> None:
        self.losing = threading.Lock()
        self._changing = threading.Lock()
        self._values: list[SharedValue] = []
        self._slot: Slot | None = None
        self._has_slot = False

    def add(self, value: SharedValue) -> None:
        with self._changing:
            self._values.append(value)
            if self._slot is not None:
                value.publish_in(self._slot, self._slot.add(value.key) if self._has_slot else None)

    def publish_in(self, slot: Slot) -> None:
        """Write all values to a slot of this process's own."""
        with self._changing:
            self._slot, self._has_slot = slot, True
            cells = dict(slot.entries())
            for value in self._values:
                value.publish_in(slot, cells[value.key] if value.key in cells else slot.add(value.key))

    def lose_in(self, slot: Slot) -> None:
        """Without a slot of its own, the process only counts its losses, in this one."""
        with self._changing:
            self._slot = slot
            for value in self._values:
                value.publish_in(slot, None)

    def start_again(self) -> None:
        self.losing, self._changing = threading.Lock(), threading.Lock()
        self._slot, self._has_slot = None, False
        for value in self._values:
            value.start_again()


_process = _Process()
os.register_at_fork(after_in_child=_process.start_again)

_memory: SharedMemory | None = None


def share(workers: int) -> None:
    """In gunicorn's master, before it forks: share the values of this process with those of as many workers."""
    global _memory  # noqa: PLW0603  # one for all processes, like prometheus_client's registry
    try:
        _memory = SharedMemory(max(LEAST_SLOTS, workers * SLOTS_PER_WORKER))
    except OSError as error:
        log.warning("Metrics are not shared, /metrics shows those of one process: %s", error)
        return
    publish_in(reserve())


def reserve() -> Slot | None:
    """In the master, before a fork: a slot for the new process; None if there is none."""
    return None if _memory is None else _memory.take()


def publish_in(slot: Slot | None) -> None:
    """In the new process, after the fork: write to the slot that was reserved for it."""
    if slot is not None:
        _process.publish_in(slot)
    elif _memory is not None:
        log.warning("Metrics of this process are lost: there are too many processes")
        _process.lose_in(_memory.losses)


def release(slot: Slot | None) -> None:
    """In the master, when a process has ended."""
    if slot is not None and _memory is not None:
        _memory.give_back(slot)


def shared() -> SharedMemory | None:
    """The memory with the values of all processes; None if this process shares nothing."""
    return _memory


class LostCounts(Collector):
    """How many counts are missing in the other metrics."""

    def collect(self) -> Iterable[Metric]:
        lost = 0.0 if _memory is None else _memory.lost
        yield CounterMetricFamily("payments_metrics_lost", "Counts that are missing in the other metrics", value=lost)
