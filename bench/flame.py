"""Where the time of a request goes: a flame graph of one worker under load, drawn by py-spy.

``python -m bench.flame create`` (or ``show``, ``list``, ``replay``) writes ``bench/results/flame-create.svg``. Drawn is
what has Python's lock, as one thread of a process has at a time: that is what a worker has to share out.
"""

import subprocess
from pathlib import Path

import click

from bench import load, services
from bench.cases import CLIENTS, MOST_READS_A_SECOND, READ
from bench.environment import Store, set_up
from bench.requests import creates, list_page, shows

RESULTS = Path(__file__).with_name("results")

# Seconds, and samples a second: some thousands of samples, without slowing down what they are taken from.
SECONDS = 10
SAMPLES_A_SECOND = 250


@click.command()
@click.argument("what", type=click.Choice(["create", "replay", "show", "list"]))
def draw(what: str) -> None:
    """Draw where the time of WHAT goes."""
    with set_up() as stage, services.ours(stage.empty.url) as running:
        store = stage.empty
        load.ask_all(running, creates(store.patient, READ), clients=CLIENTS)
        picture = RESULTS / f"flame-{what}.svg"
        picture.parent.mkdir(exist_ok=True)
        command = ["py-spy", "record", "--pid", str(running.workers[0]), "--output", picture.name, "--gil"]
        command += ["--duration", str(SECONDS), "--rate", str(SAMPLES_A_SECOND)]
        # In that folder, because py-spy writes its command down in the picture.
        with subprocess.Popen(command, cwd=RESULTS, stdout=subprocess.DEVNULL) as watching:
            came = load.ask(running, _requests(what, store), clients=CLIENTS, seconds=SECONDS + 1)
        if watching.returncode:
            raise SystemExit(
                "py-spy could not look: it needs to be allowed to trace processes (root, or CAP_SYS_PTRACE)"
            )
    click.echo(f"{picture}: {came.answers} answers by status {came.statuses}")


def _requests(what: str, store: Store) -> list[bytes]:
    if what == "create":
        return creates(store.patient, MOST_READS_A_SECOND * SECONDS, first=READ)
    again = {
        "replay": lambda: creates(store.patient, READ),
        "show": lambda: shows(store.patient, store.column("SELECT id FROM payments")),
        "list": lambda: [list_page(store.patient)] * READ,
    }
    return again[what]() * (MOST_READS_A_SECOND * (SECONDS + 2) // READ)


if __name__ == "__main__":
    draw()
