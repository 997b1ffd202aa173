"""The network between the service and the primary is cut; the cluster does not notice."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from tests.ha.faults import CUT
from tests.ha.routes import ROUTES, Route
from tests.ha.surviving import survive
from tests.support.deployment import Deployment
from tests.support.engine_watch import EngineWatch
from tests.support.etcd import HOST
from tests.support.fake_stripe import FakeStripe
from tests.support.network import Network, network_to
from tests.support.patroni import PatroniCluster

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def networks(cluster: PatroniCluster) -> Iterator[list[Network]]:
    with network_to(*((HOST, node.port) for node in cluster.nodes)) as networks:
        yield networks


@pytest.fixture(scope="module", params=ROUTES, ids=lambda route: route.name)
def route(request: pytest.FixtureRequest) -> Route:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def deployment(
    route: Route, cluster: PatroniCluster, networks: list[Network], gateway: FakeStripe
) -> Iterator[Deployment]:
    with route.deployed(cluster, [network.address for network in networks], gateway) as deployment:
        yield deployment


@pytest.mark.parametrize("is_restarted", [False, True], ids=["steady", "restarted"])
def test_payments_go_on_when_the_network_is_back(
    cluster: PatroniCluster,
    networks: list[Network],
    deployment: Deployment,
    watch: EngineWatch,
    route: Route,
    *,
    is_restarted: bool,
) -> None:
    def cut(cluster: PatroniCluster) -> AbstractContextManager[None]:
        return networks[cluster.nodes.index(cluster.primary)].cut()

    survive(
        replace(CUT, happens=cut),
        cluster,
        deployment,
        watch,
        route=route.name,
        is_restarted=is_restarted,
        unreachable_seconds=CUT.lasts_seconds,
    )
