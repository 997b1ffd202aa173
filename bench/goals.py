"""What is compared with what, and what it should come to. Every ratio is one within a round, never across rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import median

from bench.cases import Measurement

# The measurements of every case, round by round.
Rounds = Mapping[str, Sequence[Measurement]]


@dataclass(frozen=True)
class Comparison:
    """``upper`` divided by ``lower``; ``of`` is what of a measurement is compared."""

    label: str
    upper: str
    lower: str
    goal: float
    moonshot: float | None = None
    of: str = "per_second"
    at_most: bool = False

    def ratios(self, rounds: Rounds) -> list[float]:
        """One for each round; none where one of the two was not measured."""
        value = attrgetter(self.of)
        pairs = zip(rounds.get(self.upper, ()), rounds.get(self.lower, ()), strict=False)
        return [value(upper) / value(lower) for upper, lower in pairs]

    def is_met(self, ratios: Sequence[float]) -> bool:
        return median(ratios) <= self.goal if self.at_most else median(ratios) >= self.goal


COMPARISONS = (
    Comparison("create, of the limit", "create", "limit", 0.40, 0.55),
    Comparison("replay of a key, of the limit", "replay", "limit", 0.65, 0.90),
    Comparison("GET of a payment, of the limit", "show", "limit", 0.65, 0.90),
    Comparison("list of 15, of the limit", "list", "limit", 0.45, 0.60),
    Comparison("create, times plain Flask", "create", "plain-flask", 6, 8),
    Comparison("create, times FastAPI + async ORM", "create", "fastapi-orm", 3),
    Comparison("create, times FastAPI + asyncpg by hand", "create", "fastapi-asyncpg", 1.2, 1.8),
    Comparison("storm settled, times quicker than the lock in Redis", "redis-lock", "storm", 10, 16, of="p50_ms"),
    Comparison("create beside 1,000,000 payments, of an empty table", "million", "create", 0.9),
    Comparison("cost of page 60,000, of page 1", "page-1", "page-60000", 1.2, at_most=True),
    Comparison("create on SQLite, of PostgreSQL", "sqlite", "create", 0.5, 0.7),
)

# A worker's memory after 100,000 requests, of that after 1,000: at most.
MEMORY_GOAL = 1.05
