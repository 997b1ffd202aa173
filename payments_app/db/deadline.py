"""A deadline on our side for each statement, after which its connection is cut.

A server whose host is frozen, or whose network is gone, neither answers nor refuses, and none of its own timeouts runs.
Its kernel still acknowledges packets, so TCP's timeouts do not end the wait either.

What a cut statement did is unknown: it may have committed, or it may still commit when the server continues. So the
transaction runs once more on a new connection, to the server that is the primary now, and finds its key or version in
the database. If that is not possible, the response is 503, and the client's retry with the same key finds out.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus

from payments_app.observability import metrics

log = logging.getLogger(__name__)

R = TypeVar("R")

# Seconds above the server's statement timeout. If the server is well, its own error arrives within this time.
MARGIN_SECONDS = 1

# Seconds for which a stopping process does not try again to reach a server that was silent or could not be reached. As
# long as all requests that wait in its queue need to be refused; a gateway's outcome that comes later is still written.
UNREACHABLE_SECONDS = 5

# Seconds between two looks of the driver at whether the process was interrupted (psycopg's own default).
_WAIT_INTERVAL_SECONDS = 0.1


def is_stopping() -> bool:
    """Whether this process was asked to end: then requests do not wait for a silent server a second time."""
    return _is_stopping()


def set_stop_check(is_ending: Callable[[], bool]) -> None:
    """Set how ``is_stopping`` is known. gunicorn.conf.py calls it in each worker."""
    global _is_stopping  # noqa: PLW0603  # one worker is one process
    _is_stopping = is_ending


def _is_stopping() -> bool:
    return False


class DeadlinePassed(psycopg.OperationalError):
    """The server did not answer in time. The connection is closed; the statement may have committed, or may yet."""


class _Columns(Sequence[psycopg.Column]):
    """The columns of a cursor's result, each described when it is read.

    SQLAlchemy describes the columns of a compiled statement once. After that it only asks whether there are any.
    """

    def __init__(self, cursor: psycopg.Cursor[Any], size: int) -> None:
        self._cursor, self._size = cursor, size

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return True  # a result without columns is a result

    def __getitem__(self, index: Any) -> Any:
        indices = range(self._size)[index]
        if isinstance(indices, range):
            return [psycopg.Column(self._cursor, each) for each in indices]
        return psycopg.Column(self._cursor, indices)


class _Cursor(psycopg.Cursor[tuple[Any, ...]]):
    @property
    def description(self) -> Any:
        """psycopg's list of ``Column``, made as far as it is read; None without a result."""
        result = self.pgresult
        if result is None or result.status != ExecStatus.TUPLES_OK:
            return None
        return _Columns(self, result.nfields)


class DeadlineConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that is cut if the server does not answer a statement within ``deadline_seconds``; None: never."""

    deadline_seconds: float | None = None

    @cached_property
    def raw_cursor(self) -> psycopg.RawCursor[tuple[Any, ...]]:
        """A cursor for direct statements, made once: a new one would look up the adapter of each type again."""
        return psycopg.RawCursor(self)

    def wait(self, gen: PQGen[R], interval: float = _WAIT_INTERVAL_SECONDS, timeout: float | None = None) -> R:
        """Wait for the driver's next result.

        Raises:
            DeadlinePassed: there was none in time, and the connection is closed.
        """
        if timeout is not None or self.deadline_seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.deadline_seconds)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001  # psycopg has no public name for it
            # The server is not asked to cancel: it would not answer that either. Closing a connection does not wait.
            self.close()
            _note_unreachable()
            metrics.DB_STATEMENTS_CUT.inc()
            log.warning("the database gave no answer for %g s: connection cut", self.deadline_seconds)
            raise DeadlinePassed(f"no answer within {self.deadline_seconds:g} s") from None


class Connector:
    """Opens the connections of one engine, by SQLAlchemy's event ``do_connect``.

    ``deadline_seconds``: for the statements of connections opened from now on; None: they may take any time.
    """

    def __init__(self, deadline_seconds: float | None) -> None:
        self.deadline_seconds = deadline_seconds

    def __call__(
        self, _dialect: Any, _record: Any, arguments: tuple[Any, ...], parameters: dict[str, Any]
    ) -> DeadlineConnection:
        if is_stopping() and time.monotonic() < _unreachable_at + UNREACHABLE_SECONDS:
            raise psycopg.OperationalError("the process is stopping, and the database was not reached a moment ago")
        try:
            connection = DeadlineConnection.connect(*arguments, **parameters, cursor_factory=_Cursor)
        except psycopg.OperationalError:
            _note_unreachable()
            raise
        connection.deadline_seconds = self.deadline_seconds
        return connection


_unreachable_at = float("-inf")


def _note_unreachable() -> None:
    global _unreachable_at  # noqa: PLW0603  # of this process, for all its threads
    _unreachable_at = time.monotonic()
