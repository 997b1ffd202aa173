"""Measures this service, its upper limit and its peers: ``make bench``. See docs/performance.md."""

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import click

from bench import in_process, memory, picture
from bench.cases import Case, Measurement
from bench.environment import Environment, set_up
from bench.goals import IN_PROCESS
from bench.plan import CASES, Plan
from bench.report import Run
from payments_app import clock

RESULTS = Path(__file__).with_name("results")

# Seconds per case before the first round: connections are opened, statements prepared, code warmed up.
WARM_UP_SECONDS = 0.5

# What is measured besides the cases, after them.
OTHERS = ("memory", "in-process")


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 30), default=3, show_default=True, help="Seconds per case and round.")
@click.option(
    "--only", type=click.Choice([*CASES, *OTHERS]), multiple=True, help="Measure these cases, and write no file."
)
@click.option("--memory-requests", type=click.IntRange(2_000), default=memory.ALL_REQUESTS, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Output folder.")
@click.option("--batches", type=click.IntRange(1), default=5, show_default=True, help="Per kind and round, in process.")
def main(  # noqa: PLR0917  # as click calls it
    rounds: int, seconds: int, only: tuple[str, ...], memory_requests: int, results: Path, batches: int
) -> None:
    """Measure all cases in turn, several times; print the tables, and write them to a file with a picture."""
    started = time.monotonic()
    names = set(only or [*CASES, *OTHERS])
    click.echo("Starting PostgreSQL and the services", err=True)
    with ExitStack() as stack:
        environment = stack.enter_context(set_up())
        cases = Plan(environment, stack).make(names & set(CASES))
        measured = measure(cases, rounds, seconds)
        grown = measure_memory(environment, memory_requests) if "memory" in names else None
        costs = measure_in_process(batches) if "in-process" in names else {}
        run = Run(
            at=clock.now(),
            command=" ".join(["python -m bench", *sys.argv[1:]]),
            settings=environment.settings(),
            cases=cases,
            rounds=measured,
            in_process=costs,
            memory=grown,
            minutes=(time.monotonic() - started) / 60,
        )
    click.echo(run.text(None))
    if not only:
        write(run, results)


def measure(cases: Mapping[str, Case], rounds: int, seconds: int) -> dict[str, list[Measurement]]:
    """Measure all cases in rounds. Every second round is reversed, so that no case always follows the same one."""
    for case in cases.values():
        case.measure(WARM_UP_SECONDS)
    results: dict[str, list[Measurement]] = {name: [] for name in cases}
    with click.progressbar(
        length=rounds * len(cases), label="Measuring", file=sys.stderr, item_show_func=lambda name: name or ""
    ) as bar:
        for number in range(rounds):
            for name in list(cases)[:: -1 if number % 2 else 1]:
                bar.update(0, name)
                bar.render_progress()
                results[name].append(cases[name].measure(seconds))
                bar.update(1, name)
    return results


def measure_in_process(batches: int) -> dict[str, list[in_process.Cost]]:
    kinds = sorted({name for compared in IN_PROCESS for name in (compared.upper, compared.lower)})
    length = in_process.ROUNDS * batches * len(kinds)
    with click.progressbar(length=length, label="In one process", file=sys.stderr) as bar:
        return in_process.measure(kinds, batches=batches, progress=bar.update)


def measure_memory(environment: Environment, requests: int) -> tuple[memory.Memory, memory.Memory]:
    length = requests - memory.FIRST_REQUESTS
    with click.progressbar(length=length, label="Looking for growth", file=sys.stderr) as bar:
        return memory.measure(environment, requests=requests, progress=bar.update)


def write(run: Run, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    day = f"{run.at:%Y-%m-%d}"
    text = run.text(f"{day}.png")  # before a file is changed: it names the commit, and whether the tree is clean
    picture.draw(run.cases, run.rounds, folder / f"{day}.png")
    (folder / f"{day}.md").write_text(text)
    click.echo(f"Written: {folder / day}.md and .png")


if __name__ == "__main__":
    main()
