"""A circuit breaker: calls of something that is down fail at once; now and then a trial finds out whether it is up."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CircuitOpen(Exception):
    """What would be called is down, and this is no trial: do not call it."""


class CircuitBreaker:
    """Closed: all calls are allowed. Open: none, except one trial at a time, ``cool_down_seconds`` after a failure.

    It opens after ``opens_after`` failures without a success between them. ``on_open``, which gets the last failure,
    and ``on_close`` are called once for each change, in the order of the changes: they must be short.
    """

    def __init__(
        self,
        *,
        cool_down_seconds: float,
        opens_after: int = 1,
        on_open: Callable[[Exception], None],
        on_close: Callable[[], None],
    ) -> None:
        self._cool_down_seconds = cool_down_seconds
        self._opens_after = opens_after
        self._on_open = on_open
        self._on_close = on_close
        self._lock = threading.Lock()
        self._failures = 0
        # The monotonic time of the next trial; None: closed.
        self._trial_at: float | None = None
        self._is_tried = False

    @property
    def is_open(self) -> bool:
        return self._trial_at is not None

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Around one call, or around all calls of one request. A trial lasts until the end of the block.

        Raises:
            CircuitOpen: no call is allowed at present.
        """
        is_trial = self._begin()
        try:
            yield
        finally:
            if is_trial:
                self._is_tried = False

    def failed(self, error: Exception) -> None:
        """A call has found it down."""
        with self._lock:
            self._failures += 1
            if self._failures < self._opens_after:
                return
            was_closed, self._trial_at = self._trial_at is None, time.monotonic() + self._cool_down_seconds
            if was_closed:
                self._on_open(error)

    def succeeded(self) -> None:
        """A call has found it up."""
        if not self._failures:
            return
        with self._lock:
            was_open, self._failures, self._trial_at = self._trial_at is not None, 0, None
            if was_open:
                self._on_close()

    def _begin(self) -> bool:
        """Whether this is the trial."""
        if self._trial_at is None:
            return False
        with self._lock:
            if self._trial_at is None:
                return False
            if self._is_tried or time.monotonic() < self._trial_at:
                raise CircuitOpen
            self._is_tried = True
            return True
