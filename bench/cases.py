"""The kinds of cases. Each does one thing for some seconds, and then counts rows to prove that it was done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from bench import load
from bench.cpu import CpuMeter
from bench.environment import FIRST_UNPAID, Environment, Store, Stored, run_pgbench
from bench.load import Load
from bench.requests import create, creates, key, list_page
from bench.services import Running
from tests.support.redis_server import RedisServer

# Also the number of pgbench's clients.
CLIENTS = 8
CLICKS = 50

# Per round, however long a storm takes: percentiles need two values.
MIN_STORMS = 2

# More requests per second than the fastest service serves, so that the prepared requests suffice.
MOST_CREATES_A_SECOND = 6_000
MOST_READS_A_SECOND = 12_000
MOST_CHANGES_A_SECOND = 1_500

# The number of payments that the reading cases read in turn.
READ = 1_000


@dataclass(frozen=True)
class Measurement:
    """One case in one round. ``cpu_ms``: milliseconds of processor time per response, by process."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A label for the tables, and a function that measures for a number of seconds."""

    label: str
    measure: Callable[[float], Measurement]


@dataclass(frozen=True)
class Target:
    """A service, its database, the pid of the database server (None for SQLite), and its Redis if it has one."""

    running: Running
    store: Store
    database_pid: int | None = None
    redis: RedisServer | None = None

    def clear(self) -> None:
        """Delete all payments, and the copies of responses: each measurement uses the same keys."""
        self.store.clear()
        if self.redis is not None:
            self.redis.client.flushall()

    def meter(self) -> CpuMeter:
        trees = {"service": self.running.pid}
        if self.database_pid is not None:
            trees["database"] = self.database_pid
        return CpuMeter(trees)

    def send(self, requests: Sequence[bytes], seconds: float, *, expected: int) -> tuple[int, Measurement]:
        """Send requests for some seconds; returns the number of responses. All must have the expected status."""
        meter = self.meter()
        result = load.send(self.running, requests, clients=CLIENTS, seconds=seconds, begin=meter.begin)
        spent = meter.spent()
        require_statuses(result, {expected: result.responses})
        cpu_ms = {name: total / result.responses * 1000 for name, total in spent.items()}
        return result.responses, Measurement(
            result.responses / result.seconds, result.p50_seconds * 1000, result.p99_seconds * 1000, cpu_ms
        )


def create_case(label: str, target: Target) -> Case:
    """Create payments of different consultations, in an empty table."""

    def measure(seconds: float) -> Measurement:
        target.clear()
        requests = creates(target.store.patient, round(MOST_CREATES_A_SECOND * seconds))
        made, measurement = target.send(requests, seconds, expected=201)
        require_rows(target.store, made)
        if target.redis is not None:
            _require_copies(target.redis, made)
        return measurement

    return Case(label, measure)


def growing_case(label: str, target: Target) -> Case:
    """Create payments of different consultations, in a table with many payments."""
    taken = 0

    def measure(seconds: float) -> Measurement:
        nonlocal taken
        requests = creates(target.store.patient, round(MOST_CREATES_A_SECOND * seconds), first=taken)
        before = max(target.store.counts())
        made, measurement = target.send(requests, seconds, expected=201)
        taken += made
        require_rows(target.store, before + made)
        return measurement

    return Case(label, measure)


def reading_case(label: str, target: Target, requests: Callable[[Store], list[bytes]], *, expected: int) -> Case:
    """Repeat requests that change nothing, in a table with READ payments."""

    def measure(seconds: float) -> Measurement:
        target.clear()
        created = load.send_all(target.running, creates(target.store.patient, READ), clients=CLIENTS)
        require_statuses(created, {201: READ})
        _, measurement = target.send(_repeated(requests(target.store), seconds), seconds, expected=expected)
        require_rows(target.store, READ)
        return measurement

    return Case(label, measure)


def changing_case(
    label: str, target: Target, stored: Stored, requests: Callable[[Store, int], list[bytes]], *, becomes: str
) -> Case:
    """Change each of many stored payments once: they become of another status."""

    def measure(seconds: float) -> Measurement:
        target.clear()
        count = round(MOST_CHANGES_A_SECOND * seconds)
        target.store.fill(stored, count)
        made, measurement = target.send(requests(target.store, count), seconds, expected=200)
        require_status(target.store, becomes, made)
        return measurement

    return Case(label, measure)


def page_case(label: str, target: Target, cursor: str | None) -> Case:
    """Repeat the request for one page of a long list."""

    def measure(seconds: float) -> Measurement:
        requests = _repeated([list_page(target.store.patient, cursor)], seconds)
        return target.send(requests, seconds, expected=200)[1]

    return Case(label, measure)


def storm_case(label: str, target: Target) -> Case:
    """Repeat storms: 50 clicks at once on one consultation, each with its own key, until all have responses."""

    def measure(seconds: float) -> Measurement:
        target.clear()
        settled: list[float] = []
        while sum(settled) < seconds or len(settled) < MIN_STORMS:
            number = len(settled)
            clicks = [
                create(target.store.patient, FIRST_UNPAID + number, key(number * CLICKS + click))
                for click in range(CLICKS)
            ]
            result = load.send_all(target.running, clicks, clients=CLICKS)
            require_statuses(result, {201: 1, 409: CLICKS - 1})
            settled.append(result.seconds)
        require_rows(target.store, len(settled))
        percentiles = quantiles(settled, n=100, method="inclusive")
        return Measurement(len(settled) / sum(settled), percentiles[49] * 1000, percentiles[98] * 1000)

    return Case(label, measure)


def pgbench_case(label: str, environment: Environment) -> Case:
    """Only the statements of create.sql, by pgbench."""

    def measure(seconds: float) -> Measurement:
        environment.empty.clear()
        meter = CpuMeter({"database": environment.postgresql_pid})
        latencies_ms = run_pgbench(environment, clients=CLIENTS, seconds=seconds)
        spent = meter.spent()
        made = len(latencies_ms)
        require_rows(environment.empty, made)
        percentiles = quantiles(latencies_ms, n=100)
        cpu_ms = {name: total / made * 1000 for name, total in spent.items()}
        return Measurement(made / seconds, percentiles[49], percentiles[98], cpu_ms)

    return Case(label, measure)


def _repeated(requests: list[bytes], seconds: float) -> list[bytes]:
    return requests * (round(MOST_READS_A_SECOND * seconds) // len(requests) + 1)


def require_statuses(result: Load, expected: dict[int, int]) -> None:
    if result.statuses != expected:
        raise SystemExit(f"responses by status are {result.statuses}, not {expected}")


def _require_copies(redis: RedisServer, expected: int) -> None:
    """Require a copy of each response in Redis: a service that does without it for a while is not as deployed."""
    copies = len(redis.client.keys("*"))
    if copies < expected:
        raise SystemExit(f"Redis has {copies} keys after {expected} responses")


def require_status(store: Store, status: str, expected: int) -> None:
    """Require that so many payments have this status."""
    (counted,) = store.column(f"SELECT count(*) FROM payments WHERE status = '{status}'")
    if counted != expected:
        raise SystemExit(f"{expected} responses said so, but {counted} payments are {status}")


def require_rows(store: Store, expected: int) -> None:
    """Require exactly the five rows of every payment whose creation had a response."""
    counted = store.counts()
    if counted != {expected}:
        raise SystemExit(f"{expected} payments were created by responses, but the tables have {counted} rows")
