"""The verdict by which money is taken: how long it is kept, and who looks."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from payments_app import readiness
from payments_app.errors import NotReady
from payments_app.readiness import Readiness
from tests.support.waiting import PATIENCE_SECONDS

LOST = {"index": "missing"}


class Looks:
    """Somebody who looks, may be held up, and counts how often they looked."""

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}
        self.count = 0
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self) -> dict[str, str]:
        self.count += 1
        self.begun.set()
        assert self.go_on.wait(PATIENCE_SECONDS)
        return dict(self.faults)


@contextmanager
def held_up(looks: Looks, verdicts: Readiness) -> Iterator[None]:
    """While one thread is in the middle of a look."""
    looks.begun.clear()
    looks.go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(verdicts.run_checks)
        try:
            assert looks.begun.wait(PATIENCE_SECONDS)
            yield
        finally:
            looks.go_on.set()
            looking.result(PATIENCE_SECONDS)


def test_a_good_verdict_is_looked_for_once_however_many_ask() -> None:
    verdicts = Readiness(looks := Looks())

    for _ in range(100):
        verdicts.require()

    assert looks.count == 1


def test_a_bad_verdict_is_not_kept() -> None:
    verdicts = Readiness(looks := Looks())
    looks.faults = LOST
    for _ in range(2):
        with pytest.raises(NotReady) as refusal:
            verdicts.require()
        assert refusal.value.data == {"failed": ["index"]}

    looks.faults = {}
    verdicts.require()

    assert looks.count == 3


def test_a_verdict_that_was_doubted_is_looked_for_again() -> None:
    verdicts = Readiness(looks := Looks())
    verdicts.require()
    looks.faults = LOST

    verdicts.invalidate()

    assert verdicts.run_checks() == LOST


def test_while_one_looks_the_others_go_by_the_verdict_before(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = Readiness(looks := Looks())
    verdicts.require()
    monkeypatch.setattr(readiness, "REFRESH_AFTER_SECONDS", 0)
    looks.faults = LOST

    with held_up(looks, verdicts):
        assert [verdicts.run_checks() for _ in range(10)] == [{}] * 10

    assert verdicts.run_checks() == LOST


def test_nobody_goes_by_a_verdict_that_is_too_old_but_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = Readiness(looks := Looks())
    verdicts.require()
    monkeypatch.setattr(readiness, "REFRESH_AFTER_SECONDS", 0)
    monkeypatch.setattr(readiness, "OLDEST_SECONDS", 0)
    looks.faults = LOST

    with ThreadPoolExecutor(4) as pool:
        with held_up(looks, verdicts):
            waiting = [pool.submit(verdicts.run_checks) for _ in range(4)]
            assert not any(asked.done() for asked in waiting)
        assert [asked.result(PATIENCE_SECONDS) for asked in waiting] == [LOST] * 4


def test_a_look_that_does_not_end_is_not_waited_for_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = Readiness(looks := Looks())
    monkeypatch.setattr(readiness, "WAIT_SECONDS", 0.01)

    with held_up(looks, verdicts):
        assert list(verdicts.run_checks()) == ["database"]
        with pytest.raises(NotReady):
            verdicts.require()

    verdicts.require()
    assert looks.count == 1


def test_where_nobody_has_looked_yet_all_wait_for_one_look() -> None:
    verdicts = Readiness(looks := Looks())

    with ThreadPoolExecutor(8) as pool:
        with held_up(looks, verdicts):
            waiting = [pool.submit(verdicts.run_checks) for _ in range(8)]
        assert [asked.result(PATIENCE_SECONDS) for asked in waiting] == [{}] * 8

    assert looks.count == 1


def test_a_verdict_is_never_older_than_was_promised() -> None:
    """A look that begins late, or a slow one, must not stretch it."""
    assert readiness.OLDEST_SECONDS <= 30
    assert readiness.REFRESH_AFTER_SECONDS < readiness.OLDEST_SECONDS
