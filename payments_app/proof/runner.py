"""Runs a proof: rounds of attacks, each with its own rows, which are removed at the end of the round."""

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
from payments_app.proof.attacks import ATTACKS, KILLED_WORKERS, attack
from payments_app.proof.client import Client
from payments_app.proof.own_server import Workers, own_gunicorn
from payments_app.proof.promises import Attack, Violation
from payments_app.proof.scenario import LoadProfile, Scenario, WrongTarget

# Longer than a round can last: older rows belong to a killed run.
ABANDONED_AFTER = timedelta(minutes=30)

# Attempts, a second apart, to remove the rows: a request of the proof may still be running.
REMOVALS = 30

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Stopped by Ctrl-C or a signal. A BaseException, so that no ``except Exception`` catches it."""


class NotRemoved(Exception):
    """The rows could not be removed; the text is the reason."""


@dataclass(frozen=True, slots=True)
class ProofPlan:
    """``url``: a running service of this deployment, or None to start one for the proof.

    ``pace``: with ``url``, the average number of requests per second.
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
    """The result and the number of requests of each attack, by name; and totals."""

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
        """An empty report for the attacks of a plan."""
        return cls({each.name: [] for each in plan.attacks}, {each.name: 0 for each in plan.attacks})


def prove(plan: ProofPlan, report: Report, on_progress: Callable[[], None]) -> None:
    """Make every attack in every round, and remove all written rows, however the run ends.

    Fills in ``report`` as it goes, also if the run is stopped. Calls ``on_progress`` after each attack.

    Raises:
        Stopped: by a signal; no rows are left.
        WrongTarget: the service uses another database, or does not respond.
        DoesNotStart: the gunicorn for the proof did not start.
        NotRemoved: rows are left; ``remove_all`` removes them later.
    """
    started = time.monotonic()
    with _signals_raise_stopped(), _client(plan) as (client, workers):
        for number in range(plan.rounds):
            with _rows_of_a_round(report) as (name, first_consultation):
                # From the seed only, so that a run can be repeated: amounts, keys, and the order of the attacks.
                random = Random(f"{plan.seed}/{number}")  # noqa: S311  # must be repeatable, need not be secret
                scenario = Scenario(name, first_consultation, client, plan.load, random, workers)
                _attack_all(plan, scenario, report, on_progress)
            report.rounds_done += 1
        report.repeated = client.repeated
    report.seconds = time.monotonic() - started


def remove_all() -> int:
    """Remove the rows of all runs, of any age; returns their number.

    Raises:
        NotRemoved: they could not be removed.
    """
    return _remove(None)


@contextmanager
def _client(plan: ProofPlan) -> Iterator[tuple[Client, Workers | None]]:
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


def _attack_all(plan: ProofPlan, scenario: Scenario, report: Report, on_progress: Callable[[], None]) -> None:
    for each in scenario.random.sample(plan.attacks, len(plan.attacks)):
        sent, answered = scenario.client.sent, scenario.client.answered
        found = attack(each, scenario)
        if scenario.client.answered == answered:  # without responses, the findings mean nothing
            raise WrongTarget(f"{scenario.client.url} no longer responds")
        report.violations[each.name] += found
        report.requests[each.name] += scenario.client.sent - sent
        on_progress()


@contextmanager
def _rows_of_a_round(report: Report) -> Iterator[tuple[str, int]]:
    name, first_consultation = repository.new_round()
    try:
        yield name, first_consultation
    finally:
        report.rows_removed += _remove_despite_signal(name)


def _remove_despite_signal(name: str) -> int:
    """Remove the rows. If a signal interrupts it, the transaction is rolled back and repeated."""
    try:
        return _remove(name)
    except Stopped:
        _remove(name)  # after the first signal, the others are ignored
        raise


def _remove(name: str | None) -> int:
    for attempt in range(1, REMOVALS + 1):
        try:
            repository.disable(name)
            return repository.remove(name)
        except (AppError, SQLAlchemyError) as error:
            if attempt == REMOVALS:
                raise NotRemoved(str(error)) from error
            current_engines().writer.dispose()  # also drops a connection that a signal interrupted
            time.sleep(1)
    raise AssertionError("unreachable: the last attempt returned or raised")


@contextmanager
def _signals_raise_stopped() -> Iterator[None]:
    def stop(number: int, _frame: FrameType | None) -> None:
        for each in _ENDING:  # only SIGKILL may interrupt the removal that follows
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    # Signals that are ignored already stay ignored, such as SIGHUP under nohup.
    handled = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in handled}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def is_abandoned(leftovers: repository.Leftovers) -> bool:
    """Whether the rows are too old to belong to an active run."""
    return leftovers.newest_at is not None and clock.now() - leftovers.newest_at > ABANDONED_AFTER
