"""A proof from beginning to end: rounds of attacks, each with rows of its own that are gone when it is over."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from types import FrameType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from payments_app import clock
from payments_app.db.engine import current_engines
from payments_app.errors import AppError
from payments_app.proof import own_server, repository
from payments_app.proof.attacks import ATTACKS, KILLED_WORKERS, Attack, Violation, attack
from payments_app.proof.client import Client
from payments_app.proof.own_server import Workers, own_gunicorn
from payments_app.proof.scenario import LoadProfile, Scenario, WrongTarget

# Longer than a round can last: rows of an older one belong to a run that was killed.
ABANDONED_AFTER = timedelta(minutes=30)

# Attempts, a second apart, at taking the rows away while a request of ours may still be at work.
REMOVALS = 30

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """By Ctrl-C or a signal. Not an Exception, so that nothing on the way takes it for an error of its own."""


class NotRemoved(Exception):
    """Why the rows could not be taken away."""


@dataclass(frozen=True, slots=True)
class ProofPlan:
    """``url``: a running service of this deployment, or None for one of the proof's own.

    ``pace``: requests a second, on average, that one which is not the proof's own is asked.
    """

    load: LoadProfile
    rounds: int
    seed: int
    url: str | None
    pace: int
    kill_workers: bool

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (*ATTACKS, KILLED_WORKERS) if self.kill_workers else ATTACKS


@dataclass(slots=True)
class Report:
    """What became of each attack, by its name; and how much was done for it."""

    violations: dict[str, list[Violation]]
    requests: dict[str, int]
    repeated: int = 0
    rows_removed: int = 0
    rounds_done: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        return not any(self.violations.values())

    @classmethod
    def blank(cls, plan: ProofPlan) -> Self:
        """Before anything is done."""
        return cls({each.name: [] for each in plan.attacks}, {each.name: 0 for each in plan.attacks})


def prove(plan: ProofPlan, report: Report, tell: Callable[[], None]) -> None:
    """Make every attack in every round, and take away whatever was written, however it ends; tell after each attack.

    What was found by then stands in the report also where it is stopped.

    Raises:
        Stopped: by a signal; nothing is left.
        Astray: the service asked works on another database, or does not answer.
        DoesNotStart: the gunicorn of the proof's own did not come up.
        NotRemoved: rows are left, for ``remove_all`` later.
    """
    started = time.monotonic()
    with _signals_raise_stopped(), _asked(plan) as (client, workers):
        for number in range(plan.rounds):
            with _rows_of_a_round(report) as (name, first_consultation):
                # From the seed alone, so that a run can be repeated: amounts, keys, and the order of the attacks.
                chance = Random(f"{plan.seed}/{number}")  # noqa: S311  # to be repeated, not to be secret
                scenario = Scenario(name, first_consultation, client, plan.load, chance, workers)
                _attack_all(plan, scenario, report, tell)
            report.rounds_done += 1
        report.repeated = client.repeated
    report.seconds = time.monotonic() - started


def remove_all() -> int:
    """Take away what proofs have left, however old; how many rows there were.

    Raises:
        NotRemoved: they could not be.
    """
    return _remove(None)


@contextmanager
def _asked(plan: ProofPlan) -> Iterator[tuple[Client, Workers | None]]:
    at_once = plan.load.clients
    if plan.url is not None:
        client = Client(plan.url, at_once=at_once, pace=plan.pace)
        try:
            yield client, None
        finally:
            client.close()
        return
    with own_gunicorn() as (url, workers):
        client = Client(url, at_once=at_once, headers=own_server.HEADERS)
        try:
            yield client, workers
        finally:
            client.close()


def _attack_all(plan: ProofPlan, scenario: Scenario, report: Report, tell: Callable[[], None]) -> None:
    for each in scenario.chance.sample(plan.attacks, len(plan.attacks)):
        sent, answered = scenario.client.sent, scenario.client.answered
        found = attack(each, scenario)
        if scenario.client.answered == answered:  # what is found where nobody answers breaks no promise
            raise WrongTarget(f"{scenario.client.url} answers no more")
        report.violations[each.name] += found
        report.requests[each.name] += scenario.client.sent - sent
        tell()


@contextmanager
def _rows_of_a_round(report: Report) -> Iterator[tuple[str, int]]:
    name, first_consultation = repository.new_round()
    try:
        yield name, first_consultation
    finally:
        report.rows_removed += _remove_surely(name)


def _remove_surely(name: str) -> int:
    """Also where a signal comes in the middle of it: the transaction is then rolled back, and done again."""
    try:
        return _remove(name)
    except Stopped:
        _remove(name)  # the first signal is the last that is heard
        raise


def _remove(name: str | None) -> int:
    for attempt in range(1, REMOVALS + 1):
        try:
            repository.disable(name)
            return repository.remove(name)
        except (AppError, SQLAlchemyError) as error:
            if attempt == REMOVALS:
                raise NotRemoved(str(error)) from error
            current_engines().writer.dispose()  # a connection that a signal has cut off in mid-sentence among them
            time.sleep(1)
    raise AssertionError("unreachable: the last attempt returned or raised")


@contextmanager
def _signals_raise_stopped() -> Iterator[None]:
    def stop(number: int, _frame: FrameType | None) -> None:
        for each in _ENDING:  # what follows is the clearing up, which nothing but a kill may cut short
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    # What is ignored already, as SIGHUP under nohup, stays so.
    heard = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in heard}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def is_abandoned(leftovers: repository.Leftovers) -> bool:
    """Whether no run can be under way whose rows these are."""
    return leftovers.newest_at is not None and clock.now() - leftovers.newest_at > ABANDONED_AFTER
