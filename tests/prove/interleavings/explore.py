"""Trying the schedules of a case, and comparing where each ends with where the serial ones do."""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from typing import TypeVar

import pytest

from tests.support.operations import Operation, OperationResult
from tests.support.recorded_figures import note
from tests.support.schedules import Chooser, InTurn, Repeated, Search, Stage, Taken, Wandering, describe, letters
from tests.support.snapshots import Shop, Snapshot

S = TypeVar("S", bound=Shop)

# Random orders of each case that a short run does not try in full: a tenth of a second each.
SOME = 3
# The most orders of one case that a long run tries in turn, a tenth of a second each; where there are more, it goes on
# with so many that are chosen at random.
MOST = 1_500
AND_AT_RANDOM = 500

# What each operation was told in the end, and what has become of everything.
Outcome = tuple[tuple[str, ...], str]


@dataclass
class Tried:
    """What was tried of a case."""

    schedules: int = 0
    steps: int = 0
    deadlocks: int = 0
    diverged: int = 0
    given_up: int = 0
    is_all: bool = False
    outcomes: set[Outcome] = field(default_factory=set)


class Race:
    """A case on a stage: what may come out is what came out of each serial order."""

    def __init__(self, shop: S, stage: Stage, prepare: Callable[[S], list[Operation]]) -> None:
        self._stage = stage
        self.name = prepare.__name__
        self._operations: Sequence[Operation] = prepare(shop)
        Snapshot(shop).end_leases()
        self._snapshot = Snapshot(shop)
        self.tried = Tried()
        self._audited: set[str] = set()
        self._deadlocks_before = stage.deadlocks
        self.serial = {self._in_turn(order): order for order in permutations(range(len(self._operations)))}

    def _in_turn(self, order: Sequence[int]) -> Outcome:
        taken, outcome = self.run(InTurn(order))
        whose = [each.actor for each in taken]
        assert whose == sorted(whose, key=order.index), f"not one after the other:\n{describe(taken)}"
        return outcome

    def run(self, chooser: Chooser) -> tuple[list[Taken], Outcome]:
        self._snapshot.put_back()
        works = [partial(operation.do, self._snapshot.app) for operation in self._operations]
        taken, first_results = self._stage.play(works, chooser)
        outcome = self._outcome(taken, first_results)
        self.tried.schedules += 1
        self.tried.steps += len(taken)
        self.tried.deadlocks = self._stage.deadlocks - self._deadlocks_before
        self.tried.outcomes.add(outcome)
        return taken, outcome

    def check(self, chooser: Chooser) -> list[Taken]:
        taken, outcome = self.run(chooser)
        assert outcome in self.serial, (
            f"{self._where(taken)}\nends in {outcome[0]} {outcome[1]}\nwhich no serial order does, but "
            + "\n".join(f"{order}: {answers} {state}" for (answers, state), order in self.serial.items())
        )
        return taken

    def search(self, most: int | None = None) -> None:
        """Every schedule that may make a difference, or the first so many."""
        search = Search()
        while most is None or self.tried.schedules < most:
            taken = self.check(search)
            is_over = not search.has_next(taken)
            self.tried.diverged, self.tried.given_up = search.diverged, search.given_up
            if is_over:
                self.tried.is_all = search.given_up == 0
                return

    def wander(self, count: int, seed: int) -> None:
        """So many random schedules; the seed gives the same ones again."""
        numbers = random.Random(f"{self.name} {seed}")  # noqa: S311  # no secret depends on it
        for _ in range(count):
            self.check(Wandering(numbers))

    def _outcome(self, taken: Sequence[Taken], first_results: Sequence[OperationResult]) -> Outcome:
        last_results = [
            self._snapshot.finish(operation, first)
            for operation, first in zip(self._operations, first_results, strict=True)
        ]
        self._snapshot.resume_all()
        seen = self._snapshot.look()
        if seen.fingerprint not in self._audited:  # the audit of equal rows finds the same
            violations = self._snapshot.violations()
            assert violations == [], f"{self._where(taken)}\n{violations}"
            self._audited.add(seen.fingerprint)
        return tuple(each.word for each in last_results), seen.state()

    def _where(self, taken: Sequence[Taken]) -> str:
        return f"SCHEDULE={letters(taken)} pytest -k '{self.name}'\n{describe(taken)}"


def name_of(prepare: Callable[[S], list[Operation]]) -> str:
    return prepare.__name__


def race_of(shop: S, stage: Stage, prepare: Callable[[S], list[Operation]]) -> Race:
    """The case; where one order of it is to be repeated, that alone is tried."""
    race = Race(shop, stage, prepare)
    if schedule := os.environ.get("SCHEDULE"):
        race.check(Repeated(schedule))
        pytest.skip(f"only {schedule} was tried, and it ends as it should")
    return race


def try_and_note(race: Race, seed: int) -> None:
    """Every order of the case, or where there are too many the first of them and some at random; with its figures."""
    race.search(MOST)
    if not race.tried.is_all:
        race.wander(AND_AT_RANDOM, seed)
    tried = race.tried
    note(
        f"interleavings-{race.name}",
        orders=tried.schedules,
        all_of_them=tried.is_all,
        steps=tried.steps,
        outcomes=len(tried.outcomes),
        serial_outcomes=len(race.serial),
        deadlocks=tried.deadlocks,
        begun_again=tried.diverged,
        given_up=tried.given_up,
        seed=None if tried.is_all else seed,
    )
