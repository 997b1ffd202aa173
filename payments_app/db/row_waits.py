"""Limits how many requests of one process wait for a row that stays locked.

Without this limit, requests for one locked row would occupy all threads of the process, and it would serve nothing
else. A race is not affected: it is decided within milliseconds, and all its requests wait for their turn.
"""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sqlalchemy.orm import Session

from payments_app.db import engine
from payments_app.errors import LockTimeout, Unavailable

# Of the eight threads of a process (gunicorn.conf.py). The first one takes the row as soon as it is free; the second
# one is there because the client of the first may be gone.
MOST_WAITING = 2

# In a session's info: the RowWait of its transaction.
ROW_WAIT = "row wait"

# A table's name and the row's id, or anything else that only one transaction can have at a time.
Row = tuple[str, int]


@dataclass(slots=True)
class _Queue:
    """The transactions of this process that wait for a row, or work with it."""

    stuck_after_seconds: float
    # Monotonic: when the last of them succeeded, or else when the first of them came.
    moved_at: float
    size: int = 0
    # One of them has waited in vain, and none has succeeded since.
    is_stuck: bool = False


_queues: dict[Row, _Queue] = {}
_guard = threading.Lock()


class RowWait:
    """The rows that one transaction waits for, in all its attempts: a context manager around these."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def __enter__(self) -> Self:
        return self

    def enter(self, row: Row, *, stuck_after_seconds: float) -> None:
        """Join the row's queue before a statement that may wait for the row.

        Raises:
            LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
        """
        if row in self._rows:  # by an earlier attempt
            return
        with _guard:
            queue = _queues.get(row)
            if queue is None:
                queue = _queues[row] = _Queue(stuck_after_seconds, time.monotonic())
            elif queue.is_stuck and queue.size >= MOST_WAITING:
                raise LockTimeout
            queue.size += 1
        self._rows.append(row)

    def require_place(self) -> None:
        """Ask after a wait in vain whether this request may go on waiting.

        Raises:
            LockTimeout: no request of this process has got the row for ``stuck_after_seconds``, and others wait for it
                (409, retryable).
        """
        now = time.monotonic()
        with _guard:
            for row in self._rows:
                queue = _queues[row]
                queue.is_stuck = now - queue.moved_at >= queue.stuck_after_seconds
                if queue.is_stuck and queue.size > MOST_WAITING:
                    # Counted out at once: of requests that give up at the same moment, the last two must stay.
                    queue.size -= 1
                    self._rows.remove(row)
                    raise LockTimeout

    def note_progress(self) -> None:
        """Say that the rows have changed hands."""
        with _guard:
            for row in self._rows:
                _queues[row].moved_at, _queues[row].is_stuck = time.monotonic(), False

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        # A refusal by the application is progress too: it was decided with the row in hand.
        has_moved = not isinstance(error, (LockTimeout, Unavailable))
        with _guard:
            for row in self._rows:
                queue = _queues[row]
                queue.size -= 1
                if queue.size == 0:
                    del _queues[row]
                elif has_moved:
                    queue.moved_at, queue.is_stuck = time.monotonic(), False


def enter_queue(session: Session, table_name: str, row_id: int) -> None:
    """Join the queue of a row, in a transaction of ``db.transaction``, before a statement that may wait for the row.

    Raises:
        LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
    """
    wait: RowWait | None = session.info.get(ROW_WAIT)
    if wait is not None:  # None: a session that somebody opened by hand
        wait.enter((table_name, row_id), stuck_after_seconds=engine.LOCK_TIMEOUT_MS / 1000)
