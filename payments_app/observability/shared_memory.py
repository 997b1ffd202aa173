"""Memory that gunicorn's processes share, and in it the values of their metrics, so that ``/metrics`` can add them up.

prometheus_client keeps them in mapped files instead. On a full disk a write to such a file kills the process (SIGBUS),
and without its folder every request fails. This memory is mapped by the master before it forks. It has no name and no
file: nothing outside the processes can fill, remove, truncate or damage it.

It is divided into slots. A process writes to its own slot only, so no process waits for another one, and a process that
is killed leaves nothing locked or half done. The slot of an ended process goes to a later one, which continues its
counts.
"""

import json
import mmap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# A route with many statuses and its histogram takes 7 KB, and today's 41 routes together less than 300 KB. A page of
# memory that was never written takes no room.
SLOT_BYTES = 1024 * 1024

# The memory consists of cells of 8 bytes. The first cell of a slot is the number of its cells in use, the second the
# number of counts that were lost.
_CELL_BYTES = 8
_IN_USE, _LOST, _HEADER = 0, 1, 2


class Slot:
    """The values of one process. An entry is the length of a key in bytes (a cell), the key, and the value (a cell)."""

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory
        self._sizes = memory.cast("q")
        self.numbers = memory.cast("d")

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Each key, and the cell of its value. Its process may be adding entries meanwhile."""
        at, end = _HEADER, self._sizes[_IN_USE]
        while at < end:
            begin = (at + 1) * _CELL_BYTES
            key = bytes(self._bytes[begin : begin + self._sizes[at]])
            at += 1 + _cells_of(key)
            yield key, at
            at += 1

    def add(self, key: bytes) -> int | None:
        """The cell of a new entry's value, 0; None if there is no room."""
        at = max(self._sizes[_IN_USE], _HEADER)
        value_at = at + 1 + _cells_of(key)
        if value_at >= len(self.numbers):
            return None
        self._sizes[at] = len(key)
        begin = (at + 1) * _CELL_BYTES
        self._bytes[begin : begin + len(key)] = key
        self.numbers[value_at] = 0.0
        # Last: until now no reader sees the entry, and if the process is killed, the next one writes over it.
        self._sizes[_IN_USE] = value_at + 1
        return value_at

    @property
    def lost(self) -> float:
        """Counts that found no room."""
        return self.numbers[_LOST]

    def lose_one(self) -> None:
        self.numbers[_LOST] += 1


def _cells_of(key: bytes) -> int:
    return -(-len(key) // _CELL_BYTES)


class SharedMemory(Collector):
    """The slots of all processes, and as a collector the sums of their values. Only the master hands out slots.

    Raises:
        OSError: the system has no room for it.
    """

    def __init__(self, slots: int, slot_bytes: int = SLOT_BYTES) -> None:
        # One slot more, in which processes without a slot count what they lose. If two of them count at the same
        # moment, one of the two is missing.
        memory = memoryview(mmap.mmap(-1, (slots + 1) * slot_bytes))
        begins = range(0, len(memory), slot_bytes)
        *self._slots, self.losses = (Slot(memory[begin : begin + slot_bytes]) for begin in begins)
        self._free = self._slots[::-1]

    def take(self) -> Slot | None:
        """A slot for a process that is about to start; None if all are taken."""
        return self._free.pop() if self._free else None

    def give_back(self, slot: Slot) -> None:
        """Free the slot of an ended process. Its counts stay; its part of each gauge ends."""
        for key, cell in slot.entries():
            if _read(key).kind == "gauge":
                slot.numbers[cell] = 0.0
        self._free.append(slot)

    @property
    def lost(self) -> float:
        return sum(slot.lost for slot in (*self._slots, self.losses))

    def collect(self) -> Iterable[Metric]:
        """Every metric, summed over all processes: gauges over those that live, the rest also over ended ones."""
        sums: dict[bytes, float] = defaultdict(float)
        for slot in self._slots:
            for key, cell in slot.entries():
                sums[key] += slot.numbers[cell]
        metrics: dict[str, Metric] = {}
        buckets: dict[tuple[str, _Labels], list[tuple[float, float]]] = defaultdict(list)
        for key, number in sums.items():
            value = _read(key)
            metric = metrics.setdefault(value.metric, Metric(value.metric, value.help_text, value.kind))
            if value.bound is None:
                metric.add_sample(value.sample, dict(value.labels), number)
            else:
                buckets[value.metric, value.labels].append((value.bound, number))
        for (name, labels), counts in buckets.items():
            _add_buckets(metrics[name], dict(labels), sorted(counts))
        return metrics.values()


def _add_buckets(metric: Metric, labels: dict[str, str], counts: Iterable[tuple[float, float]]) -> None:
    """A process counts an observation in one bucket; Prometheus expects it in all larger ones too."""
    total = 0.0
    for bound, count in counts:
        total += count
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": floatToGoString(bound)}, total)  # type: ignore[no-untyped-call]  # untyped there
    metric.add_sample(f"{metric.name}_count", labels, total)


_Labels = tuple[tuple[str, str], ...]


def key_of(kind: str, metric: str, sample: str, labels: Iterable[tuple[str, str]], help_text: str) -> bytes:
    """The key of a value. A reader needs nothing else: another process may have labels that this one has never used."""
    return json.dumps([kind, metric, sample, list(labels), help_text]).encode()


class _Value:
    """What a key says of its value; ``bound`` is that of a histogram's bucket, and not among the labels."""

    def __init__(self, key: bytes) -> None:
        self.kind, self.metric, self.sample, labels, self.help_text = json.loads(key)
        bounds = [float(value) for label, value in labels if label == "le"]
        self.bound = bounds[0] if bounds else None
        self.labels: _Labels = tuple((label, value) for label, value in labels if label != "le")


_read = cache(_Value)  # there are as many keys as values, and each scrape reads all
