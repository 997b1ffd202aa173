"""Trying the schedules of a case, and comparing where each ends with where the serial ones do."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations

from tests.prove.interleavings.cases import Prepare
from tests.support.operations import Operation, OperationResult
from tests.support.schedules import Chooser, InTurn, Search, Stage, Taken, Wandering, describe, letters
from tests.support.snapshots import Snapshot
from tests.support.stripe_apps import StripeApp

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

    def __init__(self, stripe_app: StripeApp, stage: Stage, prepare: Prepare) -> None:
        self._stage = stage
        self.name = prepare.__name__
        self._operations: Sequence[Operation] = prepare(stripe_app)
        Snapshot(stripe_app).end_leases()
        self._snapshot = Snapshot(stripe_app)
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
