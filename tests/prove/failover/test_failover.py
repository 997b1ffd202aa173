"""A primary that is gone while people pay, and its standby in its place: nothing that they were told is lost."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.deployment import Deployment, deployed
from tests.support.recorded_figures import note
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Cluster]]:
    """Two servers, of which the first is the primary; what it commits is on the disks of both before it says so."""
    with tempfile.TemporaryDirectory(prefix="payments-failover-") as name:
        folders = [Path(name) / "one", Path(name) / "other"]
        for folder in folders:
            folder.mkdir()
        Path(name).chmod(0o755)  # the server is another user, where it is started by root
        pair = [Cluster(folder) for folder in folders]
        try:
            pair[0].make()
            pair[0].start()
            join_as_standby(pair)
            yield pair
        finally:
            for cluster in pair:
                cluster.close()


def join_as_standby(pair: list[Cluster]) -> None:
    """Let the second follow the first, and the first wait for the second with every commit from now on."""
    primary, standby = pair
    standby.make_standby_of(primary)
    standby.start()
    wait_until(lambda: primary.is_followed("async"))
    # Only after the copy: promoted, it is to commit without waiting for a standby that it has not got.
    primary.set(synchronous_standby_names="standby")
    primary.reload()
    wait_until(lambda: primary.is_followed("sync"))


@pytest.fixture(scope="module")
def deployment(pair: list[Cluster]) -> Iterator[Deployment]:
    """A service that knows both, and pays on whichever can be written to."""
    hosts, ports = ",".join(one.host for one in pair), ",".join(str(one.port) for one in pair)
    where = f"host={hosts}&port={ports}&target_session_attrs=read-write"
    with deployed(f"postgresql+psycopg://postgres@/postgres?{where}") as deployment:
        yield deployment


@pytest.mark.long  # tests/ha has a short form, in which the standby takes over by itself
def test_a_standby_takes_over_and_nothing_acknowledged_is_lost(
    deployment: Deployment, pair: list[Cluster], effort: int
) -> None:
    workers = deployment.service.workers()
    without_service = []
    with deployment.under_load("failover", effort) as load:
        for number in range(effort):
            began = time.monotonic()
            pair[0].stop("immediate") if number % 2 else pair[0].kill()
            load.wait_for_retries()
            pair[1].promote()
            load.wait_for_more(1)
            without_service.append(time.monotonic() - began)
            load.wait_for_more()
            pair.reverse()
            if number + 1 < effort:  # whoever was lost follows the new one, and takes over from it in turn
                join_as_standby(pair)
    assert deployment.service.workers() == workers
    note("failover-without-service", longest_seconds=round(max(without_service), 2), times=len(without_service))
