"""A circuit breaker: when it opens, what it lets through meanwhile, and how it closes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

import pytest

from payments_app.circuit_breaker import CircuitBreaker, CircuitOpen


class Watched(CircuitBreaker):
    """A breaker with a list of its changes."""

    def __init__(self, *, cool_down_seconds: float = 0, opens_after: int = 1) -> None:
        self.changes: list[str] = []
        super().__init__(
            cool_down_seconds=cool_down_seconds,
            opens_after=opens_after,
            on_open=lambda error: self.changes.append(str(error)),
            on_close=lambda: self.changes.append("closed"),
        )


def is_allowed(block: AbstractContextManager[None]) -> bool:
    with suppress(CircuitOpen), block:
        return True
    return False


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Watched(opens_after=3, cool_down_seconds=3600)
    for failures in (2, 2):
        for _ in range(failures):
            breaker.failed(TimeoutError("in vain"))
        assert is_allowed(breaker.allowed())
        breaker.succeeded()
    assert breaker.changes == []

    for _ in range(3):
        breaker.failed(TimeoutError("in vain"))

    assert breaker.is_open
    assert not is_allowed(breaker.allowed())
    assert breaker.changes == ["in vain"]


def test_one_at_a_time_tries_and_the_next_one_only_after_it() -> None:
    breaker = Watched()
    breaker.failed(TimeoutError("in vain"))

    with breaker.allowed():
        assert [is_allowed(breaker.allowed()) for _ in range(9)] == [False] * 9
    # It made no call after all.
    assert is_allowed(breaker.allowed())
    assert breaker.is_open


def test_a_failed_trial_is_followed_by_another_pause() -> None:
    breaker = Watched()
    breaker.failed(TimeoutError("in vain"))
    breaker._cool_down_seconds = 3600

    with breaker.allowed():
        breaker.failed(TimeoutError("again"))

    assert not is_allowed(breaker.allowed())
    assert breaker.changes == ["in vain"]


@pytest.mark.parametrize("end", [lambda: None, lambda: pytest.fail("the caller's own error")])
def test_a_trial_that_succeeds_closes_it_for_all(end: Callable[[], None]) -> None:
    breaker = Watched()
    breaker.failed(TimeoutError("in vain"))

    with suppress(pytest.fail.Exception), breaker.allowed():
        breaker.succeeded()
        end()

    with ExitStack() as many:
        for _ in range(9):
            many.enter_context(breaker.allowed())
    assert breaker.changes == ["in vain", "closed"]
    assert not breaker.is_open
