"""Lines that a thread writes: in order, without waiting for their reader; those that are dropped are counted."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from payments_app.observability import background_output
from payments_app.observability.background_output import BackgroundOutput
from tests.support.apps import app_with
from tests.support.log_lines import listening
from tests.support.waiting import wait_until

# The least that Linux makes a pipe: 40 lines of this test.
PIPE_BYTES = 4096
LINE = "{:099}\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read(reader: int, output: BackgroundOutput) -> list[str]:
    """All that it has to write."""
    text = b""
    os.set_blocking(reader, False)

    def is_written() -> bool:
        nonlocal text
        try:
            text += os.read(reader, 65536)
        except BlockingIOError:
            return not output._waiting_bytes
        return False

    wait_until(is_written)
    return text.decode().splitlines(keepends=True)


def dropped() -> float:
    return REGISTRY.get_sample_value("payments_log_lines_dropped_total") or 0.0


def test_lines_that_find_no_room_are_dropped_and_counted_and_the_log_says_how_many(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = BackgroundOutput(writer, queue_bytes=20 * 100)
    before = dropped()
    written = [LINE.format(number) for number in range(200)]
    # An app, because it sets up the log.
    with app_with("postgresql+psycopg://nobody@127.0.0.1:1/nothing"), listening("payments_app") as lines:
        for line in written:
            output.write(line)
        lost = int(dropped() - before)
        assert lost >= 200 - 40 - 40 - 20  # the pipe, one write, the queue
        kept = read(reader, output)
        wait_until(lambda: sum(event["lines"] for event in lines.of("Log lines dropped")) == lost)

    assert len(kept) == 200 - lost
    assert kept == sorted(kept)
    assert kept[:20] == written[:20]
    assert len(lines.events) < lost / 5  # one line for many
    output.write("There is room again\n")
    assert read(reader, output) == ["There is room again\n"]


def test_every_line_comes_in_order_through_a_pipe_that_does_not_wait(pipe: tuple[int, int]) -> None:
    """Another process may have set O_NONBLOCK: all processes that have the pipe share it."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    output = BackgroundOutput(writer)
    written = [LINE.format(number) for number in range(300)] + ["x" * 3 * PIPE_BYTES + "\n", "\ud800\n"]
    for line in written:
        output.write(line)

    assert read(reader, output) == [*written[:-1], "\\ud800\n"]


def test_lines_wait_for_a_reader_who_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_output, "RETRY_SECONDS", 0.01)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    output = BackgroundOutput(writer)
    os.close(reader)
    output.write("one\n")  # a broken pipe
    output.write("two\n")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    assert read(reader, output) == ["one\n", "two\n"]
    os.close(reader)
    os.close(writer)


def test_an_ending_process_waits_for_a_reader_and_not_for_ever(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_output, "DRAIN_SECONDS", 0.1)
    reader, writer = pipe
    output = BackgroundOutput(writer)
    for number in range(100):
        output.write(LINE.format(number))
    before = dropped()

    output.drain()

    assert 0 < dropped() - before <= 100
    assert len(read(reader, output)) == 100
