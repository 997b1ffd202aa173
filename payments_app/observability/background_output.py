"""Writes standard error and output in a thread of their own, so that nothing waits for their reader.

A pipe whose reader has stopped is full after 64 KiB. A thread that then writes to it waits and holds the lock of the
log, so that all other threads wait too, and gunicorn's master. gunicorn's processes write in the background; commands
write directly, because no request waits for them.
"""

import atexit
import io
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from itertools import accumulate, islice, takewhile

from payments_app.observability import metrics
from payments_app.observability.logging import get_logger

log = get_logger(__name__)

# Bytes that may wait in each process. A busy worker logs 1,000 lines of 300 bytes a second, so that a reader may be
# away for 13 s, longer than journald needs to start again. Little beside the 100 MB of a worker.
QUEUE_BYTES = 4 * 1024 * 1024

# Seconds that the thread waits for more lines before it writes the first. Without this it would wake up for almost each
# line, which takes more processor time than to write the line directly; with it, less. Not longer: lines that wait are
# lost if the process is killed.
GATHER_SECONDS = 0.05

# Seconds that an ending process waits until its last lines are written. Enough for a slow reader, and short beside the
# 10 s within which a service should stop.
DRAIN_SECONDS = 2

# Seconds between two looks whether they are written.
LOOK_AGAIN_SECONDS = 0.01

# Seconds until the next attempt after an error: the disk of a log file is full, or the reader of a pipe has ended.
RETRY_SECONDS = 1

# Bytes of one write: several processes have the same pipe, and keep each other's lines whole only up to this length.
WRITE_BYTES = select.PIPE_BUF


class BackgroundOutput(io.TextIOBase):
    """A text stream whose ``write`` never waits and never raises an error.

    Lines keep their order. A line that finds no room in the queue is dropped and counted, and so are all later ones
    until half of the queue is free: then one line of the log says how many, instead of one line for each.
    """

    def __init__(self, descriptor: int, queue_bytes: int = QUEUE_BYTES) -> None:
        self._descriptor, self._queue_bytes = descriptor, queue_bytes
        self._start_again()
        os.register_at_fork(after_in_child=self._start_again)
        atexit.register(self.drain)

    def _start_again(self) -> None:
        """In a new process: it has no thread yet, and the parent writes the lines that wait."""
        self._lock = threading.RLock()  # a signal's handler may write while its thread does
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = self._dropped = 0
        self._thread: threading.Thread | None = None
        self._is_idle = True
        # Released when the thread has work. A Condition would cost each line more.
        self._work = threading.Lock()
        self._work.acquire()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def flush(self) -> None:
        """Logging calls this after each line, so it does not wait."""

    def write(self, text: str) -> int:
        line = text.encode(errors="backslashreplace")  # a lone surrogate is no reason to lose a line
        with self._lock:
            room = self._queue_bytes // 2 if self._dropped else self._queue_bytes
            if self._waiting_bytes + len(line) > room:
                self._dropped += 1
                metrics.LOG_LINES_DROPPED.inc()
                return len(text)
            self._lines.append(line)
            self._waiting_bytes += len(line)
            was_idle, self._is_idle = self._is_idle, False
        if was_idle:
            self._wake()
        return len(text)

    def drain(self) -> None:
        """At the end of the process: wait until all is written, but not for long; what is not written is dropped."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._waiting_bytes and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN_SECONDS)
        metrics.LOG_LINES_DROPPED.inc(len(self._lines))

    def _wake(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._write_lines, name="output", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no room for a thread: the next line tries again
                self._is_idle = True
                return
            self._thread = thread
        self._work.release()

    def _write_lines(self) -> None:
        while self._work.acquire():
            time.sleep(GATHER_SECONDS)
            while lines := self._next_lines():
                self._write(b"".join(lines))
                self._forget(lines)

    def _next_lines(self) -> list[bytes]:
        """As many as fit into one write, and at least one; none, if none waits."""
        with self._lock:
            sizes = accumulate(map(len, self._lines))
            count = max(1, sum(1 for _ in takewhile(lambda size: size <= WRITE_BYTES, sizes)))
            self._is_idle = not self._lines
            return list(islice(self._lines, count))

    def _write(self, lines: bytes) -> None:
        while lines:
            try:
                lines = lines[os.write(self._descriptor, lines) :]
            except BlockingIOError:  # the parent process has switched waiting off
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                time.sleep(RETRY_SECONDS)

    def _forget(self, lines: list[bytes]) -> None:
        """These are written. If that makes half of the queue free, say how many were dropped."""
        with self._lock:
            for line in lines:
                self._lines.popleft()
                self._waiting_bytes -= len(line)
            dropped = self._dropped if self._waiting_bytes <= self._queue_bytes // 2 else 0
            self._dropped -= dropped
        if dropped:
            log.warning("Log lines dropped", lines=dropped)


def start() -> None:
    """From now on, this process and those that it forks write standard error and output in the background."""
    for name in ("stderr", "stdout"):
        stream = getattr(sys, name)
        if stream is None:  # the parent process has closed it
            continue
        stream.flush()
        output = BackgroundOutput(stream.fileno())
        setattr(sys, name, output)
        # gunicorn's access log writes to standard output, if an operator switches it on.
        for logger in (logging.getLogger(), logging.getLogger("gunicorn.access")):
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                    handler.setStream(output)
