"""Threads that take their steps one at a time, in an order that is chosen; and ways to choose it.

A thread stops before each step that others could notice: a statement, a commit, a call to the gateway. It goes on when
it is chosen. One that waits for a row in PostgreSQL cannot be chosen, and is known by what PostgreSQL says of its
locks; it comes to its next step when whoever holds the row has gone on.

To try every order that can make a difference, and few others, is dynamic partial-order reduction: C. Flanagan and
P. Godefroid, https://doi.org/10.1145/1040305.1040315, with their sleep sets. After each run, wherever two steps of it
raced (they depend on one another, and nothing between them forced their order), a run is due in which the later one
comes first. What remains untried differs from what was tried only in the order of steps that cannot see each other.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeVar

from sqlalchemy import Engine, text

from tests.support.steps import Kind, Step, listening
from tests.support.waiting import PATIENCE_SECONDS

T = TypeVar("T")

# Seconds between two looks at PostgreSQL's locks, while somebody neither goes on nor comes to their next step.
LOOK_AGAIN_SECONDS = 0.003

# The most threads there are at once: an app's pool holds eight connections.
MOST_ACTORS = 4

NAMES = "ABCD"

# How often a schedule is begun again that leads elsewhere than before: that PostgreSQL decides otherwise so many times
# in turn is as likely as so many heads of a coin.
MOST_DIVERGED = 12

# PostgreSQL's SQLSTATE for whoever it chooses to let the others go on.
DEADLOCK = "40P01"

_LOCKS = text("SELECT pid, pg_blocking_pids(pid) AS blockers FROM pg_locks WHERE NOT granted")


class State(Enum):
    MOVING = "moving"
    STOPPED = "stopped"
    DONE = "done"


@dataclass(eq=False)
class Actor:
    """One thread's work, and how far it has come."""

    index: int
    state: State = State.MOVING
    step: Step | None = None
    # Of the connection that it used last, and whether PostgreSQL is at work on a statement of it.
    pid: int | None = None
    is_asking: bool = False


@dataclass(frozen=True)
class Taken:
    """A step that was taken, whose it was, and what the others could have done instead."""

    actor: int
    step: Step
    choices: Mapping[int, Step]


class Chooser(Protocol):
    def choose(self, choices: Mapping[int, Step]) -> int:
        """Who goes on, of those that have stopped."""


class Diverged(Exception):
    """The same steps did not lead to the same place."""


def letters(taken: Sequence[Taken]) -> str:
    """A schedule as text, by which it can be repeated: whose each step was."""
    return "".join(NAMES[each.actor] for each in taken)


def told(taken: Sequence[Taken]) -> str:
    return "\n".join(f"  {NAMES[each.actor]}: {each.step}" for each in taken)


def told_choices(choices: Mapping[int, Step]) -> str:
    return ", ".join(f"{NAMES[index]}: {step}" for index, step in choices.items())


class Stage:
    """Where threads meet, on one engine."""

    def __init__(self, engine: Engine, watching: Engine) -> None:
        self._engine, self._watching = engine, watching
        self._changed = threading.Condition()
        self._actors: list[Actor] = []
        self._here = threading.local()
        self._pool = ThreadPoolExecutor(MOST_ACTORS)
        # How often PostgreSQL had to break one.
        self.deadlocks = 0

    @classmethod
    @contextmanager
    def on(cls, engine: Engine, watching: Engine) -> Iterator["Stage"]:
        """``watching`` is for looking at PostgreSQL's locks, which are not to be looked at through the app's pool."""
        stage = cls(engine, watching)
        try:
            with listening(engine, stage._on_step, answered=stage._on_answer):
                yield stage
        finally:
            stage._pool.shutdown()

    def play(self, works: Sequence[Callable[[], T]], chooser: Chooser) -> tuple[list[Taken], list[T]]:
        """Do all the works, each in a thread of its own, in the order that is chosen; what was done, and came of it."""
        assert len(works) <= MOST_ACTORS
        self._actors = [Actor(index) for index in range(len(works))]
        taken: list[Taken] = []
        running: list[Future[T]] = [
            self._pool.submit(self._act, actor, work) for actor, work in zip(self._actors, works, strict=True)
        ]
        try:
            while choices := self._choices():
                chosen = chooser.choose(choices)
                taken.append(Taken(chosen, choices[chosen], choices))
                self._go(self._actors[chosen])
        finally:
            self._let_all_go()
        return taken, [future.result(PATIENCE_SECONDS) for future in running]

    # In the threads.

    def _act(self, actor: Actor, work: Callable[[], T]) -> T:
        self._here.actor = actor
        try:
            return work()
        finally:
            self._here.actor = None
            self._become(actor, State.DONE)

    def _on_step(self, step: Step, driver: Any) -> None:
        actor: Actor | None = getattr(self._here, "actor", None)
        if actor is None:
            return
        if driver is not None:
            actor.pid = driver.info.backend_pid
        if step.concerns_others:
            actor.step = step
            self._become(actor, State.STOPPED)
            with self._changed:
                assert self._changed.wait_for(lambda: actor.state is not State.STOPPED, PATIENCE_SECONDS)
        actor.is_asking = step.kind is Kind.STATEMENT

    def _on_answer(self, *heard: Any) -> None:
        actor = getattr(self._here, "actor", None)
        if actor is not None:
            actor.is_asking = False
        error = getattr(heard[0], "original_exception", None) if heard else None
        if getattr(error, "sqlstate", None) == DEADLOCK:
            self.deadlocks += 1

    def _become(self, actor: Actor, state: State) -> None:
        with self._changed:
            actor.state = state
            self._changed.notify_all()

    # In the thread of whoever plays.

    def _go(self, actor: Actor) -> None:
        self._become(actor, State.MOVING)

    def _let_all_go(self) -> None:
        """So that no thread is left behind where the play was broken off."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            while any(actor.state is not State.DONE for actor in self._actors):
                for actor in self._actors:
                    if actor.state is State.STOPPED:
                        actor.state = State.MOVING
                self._changed.notify_all()
                self._changed.wait(LOOK_AGAIN_SECONDS)
                assert time.monotonic() < deadline

    def _choices(self) -> dict[int, Step]:
        """Who can go on, once everybody has stopped, or is done, or waits for a row of somebody who has stopped."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            while any(actor.state is State.MOVING for actor in self._actors):
                self._changed.wait(LOOK_AGAIN_SECONDS)
                moving = [actor for actor in self._actors if actor.state is State.MOVING]
                if not moving or not all(actor.is_asking for actor in moving):
                    continue
                waiting = self._look()
                if not all(actor.pid in waiting for actor in moving):
                    continue
                if not self._is_deadlock(waiting):
                    break
                assert time.monotonic() < deadline, "nobody goes on"
            return {
                actor.index: actor.step
                for actor in self._actors
                if actor.state is State.STOPPED and actor.step is not None
            }

    def _look(self) -> dict[int, list[int]]:
        """Who waits for whom. The condition is held, so nobody stops meanwhile."""
        with self._watching.connect() as connection:
            return {row.pid: row.blockers for row in connection.execute(_LOCKS)}

    def _is_deadlock(self, waiting: Mapping[int, list[int]]) -> bool:
        """Whether somebody waits who would go on waiting, whoever of those that have stopped went on."""
        free = {actor.pid for actor in self._actors if actor.state is State.STOPPED}
        ours = {actor.pid for actor in self._actors if actor.state is State.MOVING and actor.pid is not None}
        while freed := {pid for pid in ours - free if free.intersection(waiting[pid])}:
            free |= freed
        return not ours <= free


class Repeated:
    """A schedule that is known; what comes after its end goes on in the order of the actors."""

    def __init__(self, schedule: str) -> None:
        self._rest = list(schedule)

    def choose(self, choices: Mapping[int, Step]) -> int:
        if not self._rest:
            return min(choices)
        chosen = NAMES.index(self._rest.pop(0))
        if chosen not in choices:
            raise Diverged(f"{NAMES[chosen]} cannot go on; these can: {told_choices(choices)}")
        return chosen


class InTurn:
    """One after the other, in the given order: what a serial execution is."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = order

    def choose(self, choices: Mapping[int, Step]) -> int:
        return next(index for index in self._order if index in choices)


class Wandering:
    """A random schedule: whoever goes on does so for a while, and how long a while is, is random too."""

    def __init__(self, random_numbers: random.Random) -> None:
        self._random = random_numbers
        self._last = -1
        # From nearly serial to a change at nearly every step: mistakes hide at both ends.
        self._change = self._random.uniform(0.05, 0.9)

    def choose(self, choices: Mapping[int, Step]) -> int:
        if self._last not in choices or self._random.random() < self._change:
            self._last = self._random.choice(sorted(choices))
        return self._last


@dataclass(eq=False)
class _Node:
    """A state that was reached: who could go on, who is asleep (what they would do next was tried before, and nothing
    since then made a difference to it), who has been tried from here, and who is to be.
    """

    choices: Mapping[int, Step]
    asleep: frozenset[int]
    chosen: int
    due: set[int] = field(default_factory=set)
    tried: set[int] = field(default_factory=set)


class Search:
    """All schedules that may make a difference, depth first: one for each ``choose`` from start to end.

    Of two threads that wait for the same row, PostgreSQL decides who gets it. Where it decides otherwise than the first
    time, what follows is brought to an end as any other schedule, and the one that was wanted is begun again.
    """

    def __init__(self) -> None:
        self._path: list[_Node] = []
        self._failures = 0
        # Schedules that led elsewhere than before, and how many of those that were wanted were given up for it.
        self.diverged = 0
        self.given_up = 0
        self._begin()

    def _begin(self) -> None:
        self._depth, self._last = 0, -1
        self._is_redundant = self._has_diverged = False

    def choose(self, choices: Mapping[int, Step]) -> int:
        if self._is_redundant or self._has_diverged:  # bring it to an end
            return min(choices)
        if self._depth < len(self._path):
            node = self._path[self._depth]
            if node.choices != choices:
                self._has_diverged = True
                return min(choices)
        else:
            asleep = self._still_asleep()
            awake = [index for index in choices if index not in asleep]
            if not awake:  # all that could follow was tried
                self._is_redundant = True
                return min(choices)
            # Whoever went on last goes on: the first run is a serial one, and each later one is as near as can be.
            chosen = self._last if self._last in awake else awake[0]
            node = _Node(choices, asleep, chosen, due={chosen})
            self._path.append(node)
        self._depth += 1
        self._last = node.chosen
        return node.chosen

    def has_next(self, taken: Sequence[Taken]) -> bool:
        """Learn from a run, and prepare the next one; False where nothing is left to try."""
        if self._has_diverged:
            self.diverged += 1
            self._failures += 1
            if self._failures < MOST_DIVERGED:
                self._begin()
                return True
            self.given_up += 1
            del self._path[self._depth :]
        else:
            self._find_races(taken[: len(self._path)])
        self._failures = 0
        self._begin()
        return self._go_back()

    def _go_back(self) -> bool:
        """To the last state from which something is due that was not tried."""
        while self._path:
            node = self._path[-1]
            node.tried.add(node.chosen)
            left = node.due - node.tried - node.asleep
            if left:
                node.chosen = min(left)
                return True
            self._path.pop()
        return False

    def _still_asleep(self) -> frozenset[int]:
        """Who was asleep or tried at the last state, and does not mind what was done there."""
        if not self._path:
            return frozenset()
        node = self._path[-1]
        done = node.choices[node.chosen]
        return frozenset(
            index
            for index in node.asleep | node.tried
            if index != node.chosen and not node.choices[index].depends_on(done)
        )

    def _find_races(self, taken: Sequence[Taken]) -> None:
        # For each step, the steps that had to come before it.
        before: list[set[int]] = []
        for later, step in enumerate(taken):
            reached: set[int] = set()
            for earlier in range(later - 1, -1, -1):
                if earlier in reached:
                    continue
                is_own = taken[earlier].actor == step.actor
                if is_own or taken[earlier].step.depends_on(step.step):
                    if not is_own:
                        self._make_due(earlier, step.actor)
                    reached |= before[earlier] | {earlier}
            before.append(reached)

    def _make_due(self, at: int, actor: int) -> None:
        node = self._path[at]
        node.due |= {actor} if actor in node.choices else set(node.choices)
