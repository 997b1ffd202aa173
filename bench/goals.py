"""The comparisons and their goals. Every ratio is of two measurements in the same round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import median

from bench.cases import Measurement

# The measurements of each case, one per round.
Rounds = Mapping[str, Sequence[Measurement]]


@dataclass(frozen=True)
class Comparison:
    """``upper`` divided by ``lower``; ``of`` is the member of the measurements to compare."""

    label: str
    upper: str
    lower: str
    goal: float
    moonshot: float | None = None
    of: str = "per_second"
    at_most: bool = False

    def ratios(self, rounds: Rounds) -> list[float]:
        """One ratio per round; empty if one of the two cases was not measured."""
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

# The maximum ratio of a worker's memory after 100,000 requests to that after 1,000.
MEMORY_GOAL = 1.05
