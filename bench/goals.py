"""The comparisons and their goals. Every ratio is of two measurements in the same round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import median

from bench.cases import Measurement
from bench.in_process import Cost

# The measurements of each case, and the costs of each kind, one per round.
Rounds = Mapping[str, Sequence[Measurement]]
Costs = Mapping[str, Sequence[Cost]]


@dataclass(frozen=True)
class Comparison:
    """``upper`` divided by ``lower``; ``of`` is the member of the measurements to compare. Some have no goal."""

    label: str
    upper: str
    lower: str
    goal: float | None = None
    moonshot: float | None = None
    of: str = "per_second"
    at_most: bool = False

    def ratios(self, rounds: Rounds | Costs) -> list[float]:
        """One ratio per round; empty if one of the two cases was not measured."""
        value = attrgetter(self.of)
        pairs = zip(rounds.get(self.upper, ()), rounds.get(self.lower, ()), strict=False)
        return [value(upper) / value(lower) for upper, lower in pairs]

    def is_met(self, ratios: Sequence[float]) -> bool | None:
        if self.goal is None:
            return None
        return median(ratios) <= self.goal if self.at_most else median(ratios) >= self.goal


# Of measurements under load.
COMPARISONS = (
    Comparison("create as deployed, of bare", "deployed", "create", 0.80, 0.90),
    Comparison("replay as deployed, of bare", "deployed-replay", "replay"),
    Comparison("GET as deployed, of bare", "deployed-show", "show"),
    Comparison("whole life as deployed, of bare", "deployed-life", "life"),
    Comparison("whole life, times FastAPI + async ORM", "life", "life-orm", 3, 5),
    Comparison("create, of the limit", "create", "limit", 0.35, 0.45),
    Comparison("replay of a key, of the limit", "replay", "limit", 0.45, 0.65),
    Comparison("GET of a payment, of the limit", "show", "limit", 0.65, 0.90),
    Comparison("list of 15, of the limit", "list", "limit", 0.45, 0.60),
    Comparison("create, times plain Flask", "create", "plain-flask", 6),
    Comparison("create, times FastAPI + async ORM", "create", "fastapi-orm", 3),
    Comparison("create, times FastAPI + asyncpg with the same duties", "create", "asyncpg-duties", 1.0, 1.3),
    Comparison("create, times FastAPI + asyncpg by hand, without them", "create", "fastapi-asyncpg"),
    Comparison("create by granian, times gunicorn", "granian", "create"),
    Comparison("GET by granian, times gunicorn", "granian-show", "show"),
    Comparison("storm settled, times quicker than the lock in Redis", "redis-lock", "storm", 10, 16, of="p50_ms"),
    Comparison("create beside 1,000,000 payments, of an empty table", "million", "create", 0.9),
    Comparison("cost of page 60,000, of page 1", "page-1", "page-60000", 1.2, at_most=True),
    Comparison("create on SQLite, of PostgreSQL", "sqlite", "create", 0.5, 0.7),
)

# Of processor time in one process (``bench.in_process``).
IN_PROCESS = (
    Comparison("confirm, of a create", "confirm", "create", 3.0, 2.2, of="ms", at_most=True),
    Comparison("refund of a part, of a create", "refund", "create", 5.5, 4.0, of="ms", at_most=True),
    Comparison("webhook that completes, of a confirm", "webhook", "confirm", 1.0, of="ms", at_most=True),
    Comparison("consultations of a patient, of a list of 15", "consultations", "list", 1.5, of="ms", at_most=True),
    Comparison("an admin's list of 100, of a list of 15", "list_100", "list", 3.0, of="ms", at_most=True),
)

# The maximum ratio of a worker's memory after 100,000 requests to that after 1,000.
MEMORY_GOAL = 1.05
