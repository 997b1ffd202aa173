"""Measure this service beside its limit and its peers: ``make bench``. See docs/performance.md."""

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import click

from bench import memory, picture
from bench.cases import Case, Measurement
from bench.environment import Stage, set_up
from bench.plan import CASES, Plan
from bench.report import Run
from payments_app import clock

RESULTS = Path(__file__).with_name("results")

# Of a case before the first round: connections are made, statements prepared, code warmed up.
WARM_UP_SECONDS = 1


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 30), default=4, show_default=True, help="Of a case in a round.")
@click.option(
    "--only", type=click.Choice([*CASES, "memory"]), multiple=True, help="Measure these cases, and write no file."
)
@click.option("--memory-requests", type=click.IntRange(2_000), default=memory.SECOND_LOOK, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Folder.")
def main(rounds: int, seconds: int, only: tuple[str, ...], memory_requests: int, results: Path) -> None:
    """Go through all cases in turn, several times, print the tables, and write them down with a picture."""
    started = time.monotonic()
    names = set(only or [*CASES, "memory"])
    click.echo("Starting PostgreSQL and the services", err=True)
    with ExitStack() as stack:
        stage = stack.enter_context(set_up())
        cases = Plan(stage, stack).make(names & set(CASES))
        measured = measure(cases, rounds, seconds)
        grown = measure_memory(stage, memory_requests) if "memory" in names else None
        run = Run(
            at=clock.now(),
            command=" ".join(["python -m bench", *sys.argv[1:]]),
            settings=stage.settings(),
            cases=cases,
            rounds=measured,
            memory=grown,
            minutes=(time.monotonic() - started) / 60,
        )
    click.echo(run.text(None))
    if not only:
        write(run, results)


def measure(cases: Mapping[str, Case], rounds: int, seconds: int) -> dict[str, list[Measurement]]:
    """Every second round goes through the cases backwards, so that none always follows the same other."""
    for case in cases.values():
        case.measure(WARM_UP_SECONDS)
    seen: dict[str, list[Measurement]] = {name: [] for name in cases}
    with click.progressbar(
        length=rounds * len(cases), label="Measuring", file=sys.stderr, item_show_func=lambda name: name or ""
    ) as bar:
        for number in range(rounds):
            for name in list(cases)[:: -1 if number % 2 else 1]:
                bar.update(0, name)
                bar.render_progress()
                seen[name].append(cases[name].measure(seconds))
                bar.update(1, name)
    return seen


def measure_memory(stage: Stage, requests: int) -> tuple[memory.Memory, memory.Memory]:
    length = requests - memory.FIRST_LOOK
    with click.progressbar(length=length, label="Looking for growth", file=sys.stderr) as bar:
        return memory.measure(stage, requests=requests, progress=bar.update)


def write(run: Run, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    day = f"{run.at:%Y-%m-%d}"
    told = run.text(f"{day}.png")  # before a file is changed: it names the commit, and whether there is more than that
    picture.draw(run.cases, run.rounds, folder / f"{day}.png")
    (folder / f"{day}.md").write_text(told)
    click.echo(f"Written: {folder / day}.md and .png")


if __name__ == "__main__":
    main()
