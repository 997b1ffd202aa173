"""Draws a flame graph of one worker under load, with py-spy: shows what takes the time of a request.

``python -m bench.flame create`` (or ``show``, ``list``, ``replay``) writes ``bench/results/flame-create.svg``. It only
samples the thread that holds the GIL, because the GIL limits a worker.
"""

import subprocess
from pathlib import Path

import click

from bench import load, services
from bench.cases import CLIENTS, MOST_READS_A_SECOND, READ
from bench.environment import Store, set_up
from bench.requests import creates, list_page, shows

RESULTS = Path(__file__).with_name("results")

# Seconds, and samples per second: some thousands of samples, without slowing down the worker.
SECONDS = 10
SAMPLES_A_SECOND = 250


@click.command()
@click.argument("operation", type=click.Choice(["create", "replay", "show", "list"]))
def draw(operation: str) -> None:
    """Draw a flame graph of OPERATION."""
    with set_up() as environment, services.ours(environment.empty.url) as running:
        store = environment.empty
        load.send_all(running, creates(store.patient, READ), clients=CLIENTS)
        picture = RESULTS / f"flame-{operation}.svg"
        picture.parent.mkdir(exist_ok=True)
        command = ["py-spy", "record", "--pid", str(running.workers[0]), "--output", picture.name, "--gil"]
        command += ["--duration", str(SECONDS), "--rate", str(SAMPLES_A_SECOND)]
        # With a relative path, because py-spy writes its command into the picture.
        with subprocess.Popen(command, cwd=RESULTS, stdout=subprocess.DEVNULL) as py_spy:
            result = load.send(running, _requests(operation, store), clients=CLIENTS, seconds=SECONDS + 1)
        if py_spy.returncode:
            raise SystemExit("py-spy failed: it needs permission to trace processes (root, or CAP_SYS_PTRACE)")
    click.echo(f"{picture}: {result.responses} responses, by status {result.statuses}")


def _requests(operation: str, store: Store) -> list[bytes]:
    if operation == "create":
        return creates(store.patient, MOST_READS_A_SECOND * SECONDS, first=READ)
    repeated = {
        "replay": lambda: creates(store.patient, READ),
        "show": lambda: shows(store.patient, store.column("SELECT id FROM payments")),
        "list": lambda: [list_page(store.patient)] * READ,
    }
    return repeated[operation]() * (MOST_READS_A_SECOND * (SECONDS + 2) // READ)


if __name__ == "__main__":
    draw()
