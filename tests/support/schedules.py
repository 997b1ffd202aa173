"""Runs threads one step at a time, in a chosen order; and the choosers of that order.

A thread stops before each step that others could notice: a statement, a commit, a call to the gateway. It goes on when
it is chosen. A thread that waits for a row in PostgreSQL cannot be chosen; PostgreSQL's locks show which threads do. It
comes to its next step after the holder of the row has gone on.

``Search`` tries every order that can make a difference, and few others, by dynamic partial-order reduction: C. Flanagan
and P. Godefroid, https://doi.org/10.1145/1040305.1040315, with their sleep sets. After each run, if two of its steps
raced (they depend on one another, and no step between them forced their order), a run is due in which the later one
comes first. Untried orders differ from tried ones only in the order of steps that cannot see each other.
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

# Seconds between two reads of PostgreSQL's locks, while a thread does not come to its next step.
LOOK_AGAIN_SECONDS = 0.003

# The most threads at once: an app's pool holds eight connections.
MOST_ACTORS = 4

NAMES = "ABCD"

# How often a schedule is begun again if PostgreSQL decides otherwise than before. If each decision is as likely as the
# other, so many in turn are as unlikely as so many heads of a coin.
MOST_DIVERGED = 12

# PostgreSQL's SQLSTATE for the transaction that it ends to break a deadlock.
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
    # The backend of the connection that it used last, and whether PostgreSQL is executing a statement of it.
    pid: int | None = None
    is_asking: bool = False


@dataclass(frozen=True)
class Taken:
    """A step that was done, its thread, and the steps that the other threads could have done instead."""

    actor: int
    step: Step
    choices: Mapping[int, Step]


class Chooser(Protocol):
    def choose(self, choices: Mapping[int, Step]) -> int:
        """The thread that goes on, of those that have stopped."""


class Diverged(Exception):
    """The same steps did not lead to the same choices."""


def letters(taken: Sequence[Taken]) -> str:
    """A schedule as text, by which it can be repeated: the thread of each step."""
    return "".join(NAMES[each.actor] for each in taken)


def describe(taken: Sequence[Taken]) -> str:
    return "\n".join(f"  {NAMES[each.actor]}: {each.step}" for each in taken)


def describe_choices(choices: Mapping[int, Step]) -> str:
    return ", ".join(f"{NAMES[index]}: {step}" for index, step in choices.items())


class Stage:
    """Runs threads on one engine, one step at a time."""

    def __init__(self, engine: Engine, watching: Engine) -> None:
        self._engine, self._watching = engine, watching
        self._changed = threading.Condition()
        self._actors: list[Actor] = []
        self._here = threading.local()
        self._pool = ThreadPoolExecutor(MOST_ACTORS)
        # How many deadlocks PostgreSQL had to break.
        self.deadlocks = 0

    @classmethod
    @contextmanager
    def on(cls, engine: Engine, watching: Engine) -> Iterator["Stage"]:
        """``watching`` is a separate engine for reading PostgreSQL's locks: the app's pool is in use."""
        stage = cls(engine, watching)
        try:
            with listening(engine, stage._on_step, answered=stage._on_answer):
                yield stage
        finally:
            stage._pool.shutdown()

    def play(self, works: Sequence[Callable[[], T]], chooser: Chooser) -> tuple[list[Taken], list[T]]:
        """Do all works, each in its own thread, in the chosen order; returns the steps and the results."""
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

    # In the thread that calls ``play``.

    def _go(self, actor: Actor) -> None:
        self._become(actor, State.MOVING)

    def _let_all_go(self) -> None:
        """Let all threads finish, also if a run was broken off."""
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
        """The threads that can go on, once each has stopped, is done, or waits for a row of a stopped one."""
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
                assert time.monotonic() < deadline, "no thread goes on"
            return {
                actor.index: actor.step
                for actor in self._actors
                if actor.state is State.STOPPED and actor.step is not None
            }

    def _look(self) -> dict[int, list[int]]:
        """The backends that each backend waits for. The condition is held, so that no thread stops meanwhile."""
        with self._watching.connect() as connection:
            return {row.pid: row.blockers for row in connection.execute(_LOCKS)}

    def _is_deadlock(self, waiting: Mapping[int, list[int]]) -> bool:
        """Whether a thread would go on waiting even if all stopped threads went on."""
        free = {actor.pid for actor in self._actors if actor.state is State.STOPPED}
        ours = {actor.pid for actor in self._actors if actor.state is State.MOVING and actor.pid is not None}
        while freed := {pid for pid in ours - free if free.intersection(waiting[pid])}:
            free |= freed
        return not ours <= free


class Repeated:
    """A known schedule; after its end, the threads go on in order."""

    def __init__(self, schedule: str) -> None:
        self._rest = list(schedule)

    def choose(self, choices: Mapping[int, Step]) -> int:
        if not self._rest:
            return min(choices)
        chosen = NAMES.index(self._rest.pop(0))
        if chosen not in choices:
            raise Diverged(f"{NAMES[chosen]} cannot go on; these can: {describe_choices(choices)}")
        return chosen


class InTurn:
    """A serial execution: one thread after the other, in the given order."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = order

    def choose(self, choices: Mapping[int, Step]) -> int:
        return next(index for index in self._order if index in choices)


class Wandering:
    """A random schedule: a thread goes on for a random number of steps."""

    def __init__(self, random_numbers: random.Random) -> None:
        self._random = random_numbers
        self._last = -1
        # From nearly serial to a change at nearly every step: there are faults of both kinds.
        self._change = self._random.uniform(0.05, 0.9)

    def choose(self, choices: Mapping[int, Step]) -> int:
        if self._last not in choices or self._random.random() < self._change:
            self._last = self._random.choice(sorted(choices))
        return self._last


@dataclass(eq=False)
class _Node:
    """A state that was reached: the threads that could go on, those that are asleep, those tried from here, those due.

    A thread is asleep if its next step was tried before, and no step since then makes a difference to it.
    """

    choices: Mapping[int, Step]
    asleep: frozenset[int]
    chosen: int
    due: set[int] = field(default_factory=set)
    tried: set[int] = field(default_factory=set)


class Search:
    """All schedules that may make a difference, depth first; each run of ``choose`` from start to end is one.

    PostgreSQL decides which of two waiting threads gets a row. If it decides otherwise than the first time, that run is
    finished as any other schedule, and the wanted one is begun again.
    """

    def __init__(self) -> None:
        self._path: list[_Node] = []
        self._failures = 0
        # How many runs PostgreSQL decided otherwise, and how many wanted schedules were given up for that.
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
            # The last thread goes on: the first run is serial, and later ones are as near to serial as possible.
            chosen = self._last if self._last in awake else awake[0]
            node = _Node(choices, asleep, chosen, due={chosen})
            self._path.append(node)
        self._depth += 1
        self._last = node.chosen
        return node.chosen

    def has_next(self, taken: Sequence[Taken]) -> bool:
        """Evaluate a run and prepare the next one; False if there is none left to try."""
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
        """Go back to the last state with an untried thread that is due."""
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
        """The threads asleep or tried at the last state whose next step does not depend on the one done there."""
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
