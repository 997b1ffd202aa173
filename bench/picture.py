"""Draws the picture of a run: throughput and latency of every case."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bench.cases import Case, Measurement
from bench.goals import Rounds

mpl.use("agg")  # into a file, not onto a screen

COLOURS = {"this service": "#1f6fb2", "others": "#9aa5b1", "PostgreSQL alone": "#d98324"}
KINDS = {
    "limit": "PostgreSQL alone",
    **dict.fromkeys(
        ("plain-flask", "fastapi-orm", "fastapi-asyncpg", "asyncpg-duties", "life-orm", "redis-lock"), "others"
    ),
}
# Only drawn with their latency: storms per second mean nothing. They are the last cases.
STORMS = ("storm", "redis-lock")


def draw(cases: Mapping[str, Case], rounds: Rounds, path: Path) -> None:
    """Bars are medians of the rounds; thin lines go from the lowest to the highest round."""
    figure, (throughput, latency) = plt.subplots(1, 2, sharey=True, figsize=(13, 1.8 + 0.4 * len(cases)))
    _bars(
        throughput, {name: rounds[name] for name in cases if name not in STORMS}, lambda measured: measured.per_second
    )
    throughput.set_title("responses per second")
    _bars(latency, {name: rounds[name] for name in cases}, lambda measured: measured.p50_ms)
    latency.plot([median(one.p99_ms for one in rounds[name]) for name in cases], range(len(cases)), "k.")
    latency.set_title("milliseconds: p50 (bar), p99 (dot)")
    latency.set_xscale("log")
    throughput.set_yticks(range(len(cases)), [case.label for case in cases.values()])
    throughput.invert_yaxis()
    legend = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    figure.legend(handles=legend, loc="lower center", ncols=len(legend), frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axes: Axes, rounds: Rounds, value: Callable[[Measurement], float]) -> None:
    values = [[value(one) for one in measured] for measured in rounds.values()]
    medians = [median(rounds_of_case) for rounds_of_case in values]
    below = [middle - min(rounds_of_case) for middle, rounds_of_case in zip(medians, values, strict=True)]
    above = [max(rounds_of_case) - middle for middle, rounds_of_case in zip(medians, values, strict=True)]
    colours = [COLOURS[KINDS.get(name, "this service")] for name in rounds]
    axes.barh(range(len(medians)), medians, color=colours, xerr=(below, above), capsize=3)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
