"""Measures whether a worker leaks: its memory after the first requests, and after many."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, cycle, islice

import psutil

from bench import load, services
from bench.cases import CLIENTS
from bench.environment import Environment, Store
from bench.requests import creates, list_page, shows
from bench.services import Running

FIRST_REQUESTS = 1_000
ALL_REQUESTS = 100_000

# Payments created at the start, for the reading requests.
CREATED_FIRST = 200

# Requests per step of the progress bar.
AT_ONCE = 1_000


@dataclass(frozen=True)
class Memory:
    """Mebibytes after a number of requests: the worker's own memory (USS), and with shared memory (RSS)."""

    requests: int
    uss_mib: float
    rss_mib: float


def measure(environment: Environment, *, requests: int, progress: Callable[[int], None]) -> tuple[Memory, Memory]:
    """Send one worker a mixture of requests: a quarter each of creates, replays, payments and lists."""
    store = environment.empty
    store.clear()
    with services.ours(store.url, workers=1) as running:
        _send(running, creates(store.patient, CREATED_FIRST))
        mixture = _mixture(store)
        _send(running, list(islice(mixture, FIRST_REQUESTS - CREATED_FIRST)))
        before = _measure(running.pid, FIRST_REQUESTS)
        sent = FIRST_REQUESTS
        while sent < requests:
            at_once = list(islice(mixture, min(AT_ONCE, requests - sent)))
            _send(running, at_once)
            sent += len(at_once)
            progress(len(at_once))
        return before, _measure(running.pid, requests)


def _send(running: Running, requests: list[bytes]) -> None:
    result = load.send_all(running, requests, clients=CLIENTS)
    if not result.statuses.keys() <= {200, 201}:
        raise SystemExit(f"responses by status are {result.statuses}")


def _mixture(store: Store) -> Iterator[bytes]:
    replays = cycle(creates(store.patient, CREATED_FIRST))
    reads = cycle(shows(store.patient, store.column("SELECT id FROM payments")))
    for number in count(CREATED_FIRST):
        yield creates(store.patient, 1, first=number)[0]
        yield next(replays)
        yield next(reads)
        yield list_page(store.patient)


def _measure(pid: int, requests: int) -> Memory:
    (worker,) = psutil.Process(pid).children()
    info = worker.memory_full_info()
    return Memory(requests, info.uss / 2**20, info.rss / 2**20)
