"""Watches an engine of several nodes: commits a row on whichever can be written to, and records when that succeeded.

It asks each node directly, so that it measures how long the engine itself was out, without the service.
"""

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import psycopg
from psycopg import pq

from tests.support.patroni_node import Node
from tests.support.waiting import wait_until

# Seconds that it waits for a node to answer. It then closes the connection, and connects again.
ANSWER_SECONDS = 1.0

# Seconds between two commits, and between two attempts to connect to a node that cannot be written to.
PAUSE_SECONDS = 0.05
PAUSE_BEFORE_CONNECTING_SECONDS = 0.25


class NodeSilent(Exception):
    """The node refused, or did not answer in time."""


class _Connection:
    """A connection on which no wait is longer than ANSWER_SECONDS, which psycopg's own cannot promise."""

    def __init__(self, conninfo: str) -> None:
        self._deadline = time.monotonic() + ANSWER_SECONDS
        self._libpq = pq.PGconn.connect_start(conninfo.encode())
        while (polled := self._libpq.connect_poll()) != pq.PollingStatus.OK:
            if polled == pq.PollingStatus.FAILED:
                raise NodeSilent
            self._wait(to_write=polled == pq.PollingStatus.WRITING)

    def execute(self, statement: str) -> None:
        self._deadline = time.monotonic() + ANSWER_SECONDS
        self._libpq.send_query(statement.encode())
        status = pq.ExecStatus.FATAL_ERROR
        while True:
            while self._libpq.is_busy():
                self._wait()
                self._libpq.consume_input()
            if (result := self._libpq.get_result()) is None:
                break
            status = pq.ExecStatus(result.status)
        if status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            raise NodeSilent

    def close(self) -> None:
        self._libpq.finish()

    def _wait(self, *, to_write: bool = False) -> None:
        sockets, left = [self._libpq.socket], max(0.0, self._deadline - time.monotonic())
        ready = select.select([] if to_write else sockets, sockets if to_write else [], [], left)
        if not any(ready):
            raise NodeSilent


class EngineWatch:
    """``committed_at``: times of ``time.monotonic`` at which a node has acknowledged a commit."""

    def __init__(self, nodes: list[Node]) -> None:
        self.committed_at: list[float] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(node,), daemon=True) for node in nodes]

    def start(self, primary: Node) -> None:
        with primary.connect("postgres") as administrator:
            administrator.execute("CREATE TABLE IF NOT EXISTS heartbeats (at timestamptz DEFAULT clock_timestamp())")
        for thread in self._threads:
            thread.start()

    def wait_for_more(self) -> None:
        """Wait until the engine has committed once more."""
        before = len(self.committed_at)
        wait_until(lambda: len(self.committed_at) > before)

    def close(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, node: Node) -> None:
        conninfo = f"{node.conninfo('postgres')} target_session_attrs=read-write"
        while not self._is_over.wait(PAUSE_BEFORE_CONNECTING_SECONDS):
            connection = None
            try:
                connection = _Connection(conninfo)
                while not self._is_over.wait(PAUSE_SECONDS):
                    connection.execute("INSERT INTO heartbeats DEFAULT VALUES")
                    self.committed_at.append(time.monotonic())
            except (NodeSilent, psycopg.OperationalError):
                pass
            finally:
                if connection is not None:
                    connection.close()


@contextmanager
def watched(nodes: list[Node], primary: Node) -> Iterator[EngineWatch]:
    watch = EngineWatch(nodes)
    watch.start(primary)
    try:
        yield watch
    finally:
        watch.close()


def longest_gap(times: list[float], since: float, until: float) -> float:
    """Seconds: the longest time in which nothing happened."""
    within = sorted(at for at in times if since <= at <= until)
    return max(after - before for before, after in pairwise([since, *within, until]))
