"""Numbers of several processes in shared memory: added up as Prometheus expects, and no error if there is no room."""

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from payments_app.observability.shared_memory import SharedMemory, Slot
from payments_app.observability.shared_values import SharedValue


def counter(label: str) -> SharedValue:
    return SharedValue("counter", "asked", "asked_total", ("label",), (label,), "Requests")


def publish(slot: Slot, values: Iterable[SharedValue]) -> None:
    cells = dict(slot.entries())
    for value in values:
        value.publish_in(slot, cells[value.key] if value.key in cells else slot.add(value.key))


def taken(memory: SharedMemory) -> Slot:
    slot = memory.take()
    assert slot is not None
    return slot


def shown(memory: SharedMemory) -> list[str]:
    return [line for line in generate_latest(memory).decode().splitlines() if not line.startswith("#")]


def test_counts_of_processes_are_added_up_and_outlive_them() -> None:
    memory = SharedMemory(2)
    slots = [taken(memory), taken(memory)]
    counts = [counter("a"), counter("a")]
    gauges = [SharedValue("gauge", "alive", "alive", (), (), "Processes") for _ in slots]
    for slot, count, gauge in zip(slots, counts, gauges, strict=True):
        publish(slot, [count, gauge])
        count.inc(3)
        gauge.set(1)
    assert shown(memory) == ['asked_total{label="a"} 6.0', "alive 2.0"]

    memory.give_back(slots[0])
    assert shown(memory) == ['asked_total{label="a"} 6.0', "alive 1.0"]

    later = counter("a")
    publish(taken(memory), [later])
    later.inc(1)
    assert shown(memory) == ['asked_total{label="a"} 7.0', "alive 1.0"]
    assert memory.take() is None


def test_a_histogram_of_several_processes_reads_like_that_of_one() -> None:
    """prometheus_client's own adds up the buckets of one process; ours must say the same of two."""
    observed = (0.001, 0.02, 0.02, 0.3, 7)
    alone = CollectorRegistry()
    whole = Histogram("waited_seconds", "Seconds", ["who"], buckets=(0.005, 0.25, 10), registry=alone).labels("x")
    memory = SharedMemory(2)
    for numbers in (observed[:2], observed[2:]):
        sum_ = SharedValue("histogram", "waited_seconds", "waited_seconds_sum", ("who",), ("x",), "Seconds")
        buckets = {
            bound: SharedValue(
                "histogram", "waited_seconds", "waited_seconds_bucket", ("who", "le"), ("x", bound), "Seconds"
            )
            for bound in ("0.005", "0.25", "10.0", "+Inf")
        }
        publish(taken(memory), [sum_, *buckets.values()])
        for number in numbers:
            whole.observe(number)
            sum_.inc(number)
            next(bucket for bound, bucket in buckets.items() if number <= float(bound)).inc(1)

    expected = [line for line in generate_latest(alone).decode().splitlines() if "_created" not in line]
    assert sorted(generate_latest(memory).decode().splitlines()) == sorted(expected)


def test_a_value_without_room_is_counted_as_lost_and_raises_nothing() -> None:
    memory = SharedMemory(1, slot_bytes=4096)
    values = [counter(f"label-{number}") for number in range(60)]
    publish(taken(memory), values)
    for value in values:
        value.inc(1)
        value.inc(1)

    fitted = len(shown(memory))
    assert 20 < fitted < 60
    assert shown(memory) == [f'asked_total{{label="label-{number}"}} 2.0' for number in range(fitted)]
    assert memory.lost == 2 * (60 - fitted)
    assert {value.get() for value in values} == {2}


class Ending:
    """The sizes of a slot, of a process that ends before it can write how much of the slot is in use."""

    def __init__(self, sizes: "memoryview[int]") -> None:
        self._sizes = sizes

    def __getitem__(self, at: int) -> int:
        return self._sizes[at]

    def __setitem__(self, at: int, size: int) -> None:
        if at == 0:
            raise KeyboardInterrupt
        self._sizes[at] = size


def test_an_entry_that_an_ended_process_left_half_written_is_written_over() -> None:
    memory = SharedMemory(1)
    slot = taken(memory)
    publish(slot, [counter("before")])
    sizes = slot._sizes
    slot._sizes = Ending(sizes)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        slot.add(counter("half").key)
    slot._sizes = sizes
    assert shown(memory) == ['asked_total{label="before"} 0.0']

    memory.give_back(slot)
    later = counter("later")
    publish(taken(memory), [later])
    later.inc(1)
    assert shown(memory) == ['asked_total{label="before"} 0.0', 'asked_total{label="later"} 1.0']


def test_a_gauge_of_another_mode_is_refused_when_it_is_defined() -> None:
    with pytest.raises(ValueError, match="livesum"):
        Gauge("of_each", "Processes", registry=CollectorRegistry(), multiprocess_mode="max")
