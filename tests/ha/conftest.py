"""One cluster for all faults: each leaves it whole, with a primary and a synchronous standby."""

from collections.abc import Iterator

import pytest

from tests.support.engine_watch import EngineWatch, watched
from tests.support.fake_stripe import FakeStripe
from tests.support.patroni import PatroniCluster, patroni_cluster
from tests.support.stripe_apps import fake_stripe


@pytest.fixture(scope="package")
def cluster() -> Iterator[PatroniCluster]:
    with patroni_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="package")
def gateway() -> Iterator[FakeStripe]:
    with fake_stripe() as gateway:
        yield gateway


@pytest.fixture
def watch(cluster: PatroniCluster) -> Iterator[EngineWatch]:
    cluster.wait_until_in_step()  # the fault before may have failed
    with watched(cluster.nodes, cluster.primary) as watch:
        yield watch
