"""One deployment for all faults: each test leaves it working, without a restart."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clock import Clock
from tests.support.cluster import LAZY_LOG, Cluster
from tests.support.deployment import Deployment, deployed
from tests.support.small_disk import SmallDisk, small_disk


@pytest.fixture(scope="session")
def disk() -> Iterator[SmallDisk]:
    with small_disk() as disk:
        yield disk


@pytest.fixture(scope="session")
def cluster(disk: SmallDisk) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="payments-faults-") as folder:
        cluster = Cluster(Path(folder), disk.folder / "data")
        # At most two segments of WAL: a small disk has no room for a third.
        cluster.make(min_wal_size="32MB", max_wal_size="32MB", **LAZY_LOG)
        cluster.start()
        cluster.make_careless()  # the service asks for more than the defaults, whatever they are
        yield cluster
        cluster.close()


@pytest.fixture(scope="session")
def deployment(cluster: Cluster) -> Iterator[Deployment]:
    with deployed(cluster.url) as deployment:
        yield deployment


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")
