"""Whether a worker grows: its memory after many requests beside after the first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, cycle, islice

import psutil

from bench import load, services
from bench.cases import CLIENTS
from bench.environment import Stage, Store
from bench.requests import creates, list_page, shows
from bench.services import Running

FIRST_LOOK = 1_000
SECOND_LOOK = 100_000

# Payments that are made in the beginning, so that there is something to read.
MADE_FIRST = 200

# Requests between two steps of the progress bar.
AT_ONCE = 1_000


@dataclass(frozen=True)
class Memory:
    """Mebibytes after so many requests: the worker's own (USS), and with what it shares with its parent (RSS)."""

    requests: int
    uss_mib: float
    rss_mib: float


def measure(stage: Stage, *, requests: int, progress: Callable[[int], None]) -> tuple[Memory, Memory]:
    """One worker, asked for a mixture: a quarter each of creates, replays, payments and lists."""
    store = stage.empty
    store.clear()
    with services.ours(store.url, workers=1) as running:
        _ask(running, creates(store.patient, MADE_FIRST))
        mixture = _mixture(store)
        _ask(running, list(islice(mixture, FIRST_LOOK - MADE_FIRST)))
        before = _look(running.pid, FIRST_LOOK)
        asked = FIRST_LOOK
        while asked < requests:
            at_once = list(islice(mixture, min(AT_ONCE, requests - asked)))
            _ask(running, at_once)
            asked += len(at_once)
            progress(len(at_once))
        return before, _look(running.pid, requests)


def _ask(running: Running, requests: list[bytes]) -> None:
    came = load.ask_all(running, requests, clients=CLIENTS)
    if not came.statuses.keys() <= {200, 201}:
        raise SystemExit(f"answers by status are {came.statuses}")


def _mixture(store: Store) -> Iterator[bytes]:
    replays = cycle(creates(store.patient, MADE_FIRST))
    reads = cycle(shows(store.patient, store.column("SELECT id FROM payments")))
    for number in count(MADE_FIRST):
        yield creates(store.patient, 1, first=number)[0]
        yield next(replays)
        yield next(reads)
        yield list_page(store.patient)


def _look(pid: int, requests: int) -> Memory:
    (worker,) = psutil.Process(pid).children()
    seen = worker.memory_full_info()
    return Memory(requests, seen.uss / 2**20, seen.rss / 2**20)
