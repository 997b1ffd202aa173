"""The kinds of cases: each does one thing for some seconds, and proves by counting rows that it did it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from bench import load
from bench.cpu import CpuMeter
from bench.environment import FIRST_UNPAID, Stage, Store, run_pgbench
from bench.load import Load
from bench.requests import create, creates, key, list_page
from bench.services import Running

# As many as pgbench is run with.
CLIENTS = 8
CLICKS = 50

# Of a round, however long one takes: percentiles need two.
LEAST_STORMS = 2

# More than the quickest service answers in a second, so that the requests last.
MOST_CREATES_A_SECOND = 6_000
MOST_READS_A_SECOND = 12_000

# Payments that the reading cases read in turn.
READ = 1_000


@dataclass(frozen=True)
class Measurement:
    """One case in one round. ``cpu_ms``: milliseconds of processor time for each answer, by whom."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What people read of it, and how it is measured for so many seconds."""

    label: str
    measure: Callable[[float], Measurement]


@dataclass(frozen=True)
class Target:
    """A service, the database it keeps its payments in, and the server of that, which SQLite has none of."""

    running: Running
    store: Store
    database_pid: int | None = None

    def ask(self, requests: Sequence[bytes], seconds: float, *, expected: int) -> tuple[int, Measurement]:
        """How many answers came, all of them with the status that is expected."""
        trees = {"service": self.running.pid}
        if self.database_pid is not None:
            trees["database"] = self.database_pid
        meter = CpuMeter(trees)
        came = load.ask(self.running, requests, clients=CLIENTS, seconds=seconds, begin=meter.begin)
        spent = meter.spent()
        _require_statuses(came, {expected: came.answers})
        cpu_ms = {name: of_all / came.answers * 1000 for name, of_all in spent.items()}
        return came.answers, Measurement(
            came.answers / came.seconds, came.p50_seconds * 1000, came.p99_seconds * 1000, cpu_ms
        )


def create_case(label: str, target: Target) -> Case:
    """Payments of different consultations, in an empty table."""

    def measure(seconds: float) -> Measurement:
        target.store.clear()
        requests = creates(target.store.patient, round(MOST_CREATES_A_SECOND * seconds))
        made, measurement = target.ask(requests, seconds, expected=201)
        _require_rows(target.store, made)
        return measurement

    return Case(label, measure)


def growing_case(label: str, target: Target) -> Case:
    """Payments of different consultations, beside all those that are there already."""
    taken = 0

    def measure(seconds: float) -> Measurement:
        nonlocal taken
        requests = creates(target.store.patient, round(MOST_CREATES_A_SECOND * seconds), first=taken)
        before = max(target.store.counts())
        made, measurement = target.ask(requests, seconds, expected=201)
        taken += made
        _require_rows(target.store, before + made)
        return measurement

    return Case(label, measure)


def reading_case(label: str, target: Target, requests: Callable[[Store], list[bytes]], *, expected: int) -> Case:
    """Requests that change nothing, again and again, where READ payments were made."""

    def measure(seconds: float) -> Measurement:
        target.store.clear()
        made = load.ask_all(target.running, creates(target.store.patient, READ), clients=CLIENTS)
        _require_statuses(made, {201: READ})
        _, measurement = target.ask(_repeated(requests(target.store), seconds), seconds, expected=expected)
        _require_rows(target.store, READ)
        return measurement

    return Case(label, measure)


def page_case(label: str, target: Target, cursor: str | None) -> Case:
    """One page of a long list, again and again."""

    def measure(seconds: float) -> Measurement:
        requests = _repeated([list_page(target.store.patient, cursor)], seconds)
        return target.ask(requests, seconds, expected=200)[1]

    return Case(label, measure)


def storm_case(label: str, target: Target) -> Case:
    """50 clicks on one consultation at the same moment, with a key each, until all have been answered; and again."""

    def measure(seconds: float) -> Measurement:
        target.store.clear()
        settled: list[float] = []
        while sum(settled) < seconds or len(settled) < LEAST_STORMS:
            number = len(settled)
            clicks = [
                create(target.store.patient, FIRST_UNPAID + number, key(number * CLICKS + click))
                for click in range(CLICKS)
            ]
            came = load.ask_all(target.running, clicks, clients=CLICKS)
            _require_statuses(came, {201: 1, 409: CLICKS - 1})
            settled.append(came.seconds)
        _require_rows(target.store, len(settled))
        percentiles = quantiles(settled, n=100, method="inclusive")
        return Measurement(len(settled) / sum(settled), percentiles[49] * 1000, percentiles[98] * 1000)

    return Case(label, measure)


def pgbench_case(label: str, stage: Stage) -> Case:
    """The statements of create.sql with nothing around them."""

    def measure(seconds: float) -> Measurement:
        stage.empty.clear()
        meter = CpuMeter({"database": stage.postgresql_pid})
        latencies_ms = run_pgbench(stage, clients=CLIENTS, seconds=seconds)
        spent = meter.spent()
        made = len(latencies_ms)
        _require_rows(stage.empty, made)
        percentiles = quantiles(latencies_ms, n=100)
        cpu_ms = {name: of_all / made * 1000 for name, of_all in spent.items()}
        return Measurement(made / seconds, percentiles[49], percentiles[98], cpu_ms)

    return Case(label, measure)


def _repeated(requests: list[bytes], seconds: float) -> list[bytes]:
    return requests * (round(MOST_READS_A_SECOND * seconds) // len(requests) + 1)


def _require_statuses(came: Load, expected: dict[int, int]) -> None:
    if came.statuses != expected:
        raise SystemExit(f"answers by status are {came.statuses}, not {expected}")


def _require_rows(store: Store, expected: int) -> None:
    """All five rows of every payment that was answered for, and no others."""
    counted = store.counts()
    if counted != {expected}:
        raise SystemExit(f"{expected} payments were answered for, and the rows of each table are {counted}")
