"""The tables: on the screen, and with the picture in a file in bench/results/."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from bench.cases import Case, Measurement
from bench.goals import COMPARISONS, IN_PROCESS, MEMORY_GOAL, Comparison, Costs, Rounds
from bench.locking import row, spread
from bench.memory import Memory
from tests.support.databases import ROOT

# Per second; from here on, tenths are not shown.
EXACT_BELOW = 100

MEASUREMENTS_MEAN = (
    "Medians of the rounds (lowest to highest). A storm and a whole life count as one response. The last three columns"
    " are the milliseconds of processor time of client, service and database per response."
)
COSTS_MEAN = (
    "Of the service alone, without a server, as `python -m bench.in_process` measures it: medians of the least"
    " milliseconds of processor time of each round (lowest to highest), and the least number of calls."
)


@dataclass(frozen=True)
class Run:
    """All measurements of a run, and its circumstances."""

    at: datetime
    command: str
    settings: Mapping[str, str]
    cases: Mapping[str, Case]
    rounds: Rounds
    in_process: Costs
    memory: tuple[Memory, Memory] | None
    minutes: float

    def text(self, picture: str | None) -> str:
        parts = [
            f"# Measured on {self.at:%Y-%m-%d}",
            self._circumstances(),
            "## Ratios",
            "Each ratio is of one round: the median of the rounds (lowest to highest).",
            "\n".join(self._ratio_rows()),
            "## Measurements",
            MEASUREMENTS_MEAN,
            "\n".join(self._measurement_rows()),
        ]
        if self.in_process:
            parts += ["## In one process", COSTS_MEAN, "\n".join(self._cost_rows())]
        if picture:
            parts.append(f"![Throughput and latency]({picture})")
        return "\n\n".join(parts) + "\n"

    def _circumstances(self) -> str:
        count = max((len(measured) for measured in self.rounds.values()), default=0)
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return (
            f"`{self.command}`, at commit {_commit()}: {count} rounds through all cases in turn, in {self.minutes:.0f}"
            f" minutes. {_processor()}, {os.cpu_count()} cores, shared by client, service and database; "
            f"{platform.system()} {platform.release()}, Python {platform.python_version()}. PostgreSQL: {settings}."
        )

    def _ratio_rows(self) -> list[str]:
        rows = [
            row("ratio", ["goal", "moonshot", "measured", "goal met"]),
            row("---", ["---:", "---:", "---:", "---"]),
        ]
        for compared in COMPARISONS:
            rows += _ratio_row(compared, compared.label, self.rounds)
        for compared in IN_PROCESS:
            rows += _ratio_row(compared, f"{compared.label}, ms in one process", self.in_process)
        if self.memory:
            rows.append(_memory_row(*self.memory))
        return rows

    def _measurement_rows(self) -> list[str]:
        columns = ["a second", "p50, ms", "p99, ms", "client, ms", "service, ms", "database, ms"]
        rows = [row("case", columns), row("---", ["---:"] * len(columns))]
        return rows + [row(case.label, _cells(self.rounds[name])) for name, case in self.cases.items()]

    def _cost_rows(self) -> list[str]:
        rows = [row("kind", ["ms", "function calls"]), row("---", ["---:", "---:"])]
        return rows + [
            row(kind, [spread([cost.ms for cost in costs], digits=2), str(min(cost.calls for cost in costs))])
            for kind, costs in self.in_process.items()
        ]


def _ratio_row(compared: Comparison, label: str, rounds: Rounds | Costs) -> list[str]:
    """No row if one of the two was not measured."""
    ratios = compared.ratios(rounds)
    if not ratios:
        return []
    met = {True: "yes", False: "no", None: ""}[compared.is_met(ratios)]
    return [row(label, [_goal(compared), _number(compared.moonshot), spread(ratios, digits=2), met])]


def _cells(measured: Sequence[Measurement]) -> list[str]:
    cells = [
        spread([one.per_second for one in measured], digits=0 if measured[0].per_second >= EXACT_BELOW else 1),
        spread([one.p50_ms for one in measured], digits=1),
        spread([one.p99_ms for one in measured], digits=1),
    ]
    for process in ("client", "service", "database"):
        spent = [one.cpu_ms[process] for one in measured if process in one.cpu_ms]
        cells.append(f"{median(spent):.2f}" if spent else "")
    return cells


def _memory_row(before: Memory, after: Memory) -> str:
    ratio = after.uss_mib / before.uss_mib
    measured = f"{ratio:.2f} ({before.uss_mib:.1f} to {after.uss_mib:.1f} MiB of its own)"
    label = f"memory of a worker: after {after.requests:,} requests to after {before.requests:,}"
    return row(label, [f"at most {MEMORY_GOAL}", "", measured, "yes" if ratio <= MEMORY_GOAL else "no"])


def _goal(compared: Comparison) -> str:
    return f"at most {_number(compared.goal)}" if compared.at_most and compared.goal else _number(compared.goal)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _commit() -> str:
    if shutil.which("git") is None:  # an unpacked archive: no reason to lose the measurements
        return "unknown"
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607  # git from PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"
