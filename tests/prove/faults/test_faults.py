"""Each part killed, starved and lied to while people pay: nothing that they were told is lost, nothing happens twice.

Those who pay send the same request with the same key until they are answered. What is asserted of all that they were
told, after each fault, is in ``tests/support/invariants.py``; no fault needs a restart of the service.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psycopg
import pytest

from tests.support.clock import Clock, hours_ahead
from tests.support.cluster import Cluster
from tests.support.deployment import WORKERS, Deployment
from tests.support.small_disk import SmallDisk
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def what_postgresql_says(cluster: Cluster) -> Iterator[None]:
    """Of itself, shown with a test that fails; what it says of statements and clients is far more."""
    before = len(cluster.log.read_text())
    yield
    since = cluster.log.read_text()[before:].splitlines(keepends=True)
    sys.stdout.writelines([line for line in since if " LOG: " in line or " PANIC: " in line][-40:])


def test_killed_workers_lose_nothing_that_was_acknowledged(deployment: Deployment, effort: int) -> None:
    with deployment.under_load("faults-workers-killed", effort) as load:
        for _ in range(effort):
            killed = deployment.service.workers()
            for worker in killed:
                os.kill(worker, signal.SIGKILL)
            load.wait_for_retries(1)
            wait_until(lambda: len(deployment.service.workers() - killed) == WORKERS)  # noqa: B023  # at once
            load.wait_for_more()


def test_a_crashed_postgresql_loses_nothing_that_was_acknowledged(
    deployment: Deployment, cluster: Cluster, effort: int
) -> None:
    workers = deployment.service.workers()
    with deployment.under_load("faults-postgresql-crashed", effort) as load:
        for number in range(effort):
            cluster.stop("immediate") if number % 2 else cluster.kill()
            load.wait_for_retries()
            cluster.start()
            load.wait_for_more()
    assert deployment.service.workers() == workers


def test_a_database_that_is_serializable_by_default_turns_nobody_away(deployment: Deployment) -> None:
    with deployment.under_load("faults-serializable", 1) as load:
        load.wait_for_more(60)
    assert load.retried == 0
    assert {refund.status for refund in load.refunds} == {200}


def test_a_postgresql_without_a_free_connection_is_waited_for(
    deployment: Deployment, cluster: Cluster, effort: int
) -> None:
    workers = deployment.service.workers()
    with deployment.under_load("faults-out-of-connections", effort) as load:
        for _ in range(effort):
            with ExitStack() as others:
                cluster.take_all_connections(others)
                load.wait_for_retries()
            load.wait_for_more()
    assert cluster.times_said("sorry, too many clients already")
    assert deployment.service.workers() == workers


# What PostgreSQL ends with where its log, or a checkpoint, has no room.
PANIC = "PANIC:  could not write to file"


def test_a_full_disk_refuses_and_loses_nothing(
    deployment: Deployment, cluster: Cluster, disk: SmallDisk, effort: int
) -> None:
    workers, panics = deployment.service.workers(), cluster.times_said(PANIC)
    with deployment.under_load("faults-disk-full", effort) as load:
        for _ in range(effort):
            cluster.begin_segment()  # only data are to find no room: a log without any is the next test's
            with disk.full():
                load.wait_for_retries()
            load.wait_for_more()
    assert cluster.times_said("could not extend file")
    assert cluster.times_said(PANIC) == panics
    assert deployment.service.workers() == workers


@pytest.mark.long
def test_a_disk_too_full_for_the_log_stops_postgresql_and_loses_nothing(
    deployment: Deployment, cluster: Cluster, disk: SmallDisk, effort: int
) -> None:
    workers = deployment.service.workers()
    with deployment.under_load("faults-disk-full-for-the-log", effort) as load:
        for _ in range(effort):
            panics = cluster.times_said(PANIC)
            with disk.full():
                with suppress(psycopg.OperationalError), cluster.connect() as administrator:
                    while True:  # each begins another segment, until there is no room for one
                        administrator.execute("SELECT pg_switch_wal()")
                load.wait_for_retries()
                assert cluster.times_said(PANIC) > panics  # once, or once more while it starts again
            cluster.restart()  # it may be well again, have ended, or wait for ever: docs/operations.md, "The disk"
            load.wait_for_more()
    assert deployment.service.workers() == workers


@pytest.mark.long  # tests/faults/test_redis_outages.py does so in shorter storms
def test_a_redis_that_dies_or_keeps_silent_or_forgets_is_not_missed(deployment: Deployment, effort: int) -> None:
    redis = deployment.redis
    with deployment.under_load("faults-redis", effort) as load:
        for _ in range(effort):
            redis.kill()
            load.wait_for_more()
            redis.start()
            load.wait_for_more()
            redis.pause()
            load.wait_for_more()
            redis.resume()
            for _ in range(10):
                redis.client.flushall()
                load.wait_for_more(4)
    assert load.retried == 0  # nobody was turned away


# Hours that the clock of the service jumps to, from what it was when people logged in, and back: beyond the end of
# their tokens (1 h) and what is kept under a key (24 h), and to before they did.
JUMPS = (30, -1, 0, -26, 2, 0)


@pytest.mark.long
def test_a_clock_that_jumps_pays_nothing_twice(deployment: Deployment, clock: Clock) -> None:
    with deployment.beside(**clock.environment) as beside, beside.under_load("faults-clock-jumps", 1) as load:
        workers = beside.service.workers()
        for hours in JUMPS:
            clock.set(hours)
            wait_until(lambda: hours_ahead(beside.service) == hours)  # noqa: B023  # at once
            load.wait_for_more()
        assert beside.service.workers() == workers
    assert load.logged_in_again
