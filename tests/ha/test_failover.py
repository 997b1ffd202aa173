"""A PostgreSQL that fails over by itself, as deploy/patroni sets it up, while people pay."""

from collections.abc import Iterator

import pytest

from tests.ha.faults import FAULTS, Fault
from tests.ha.routes import ROUTES, Route
from tests.ha.surviving import survive
from tests.support.deployment import Deployment
from tests.support.engine_watch import EngineWatch
from tests.support.fake_stripe import FakeStripe
from tests.support.patroni import PatroniCluster


def in_its_form(*values: object, is_short: bool, name: str) -> object:
    return pytest.param(*values, id=name, marks=[] if is_short else [pytest.mark.long])


@pytest.fixture(
    scope="module", params=[in_its_form(route, is_short=route is ROUTES[0], name=route.name) for route in ROUTES]
)
def route(request: pytest.FixtureRequest) -> Route:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def deployment(route: Route, cluster: PatroniCluster, gateway: FakeStripe) -> Iterator[Deployment]:
    with route.deployed(cluster, cluster.addresses(), gateway) as deployment:
        yield deployment


@pytest.mark.parametrize(
    ("fault", "is_restarted"),
    [
        in_its_form(
            fault,
            is_restarted,
            is_short=fault is FAULTS[0] and not is_restarted,
            name=f"{fault.name}-restarted" if is_restarted else fault.name,
        )
        for fault in FAULTS
        for is_restarted in (False, True)
    ],
)
def test_what_was_acknowledged_is_kept(
    fault: Fault,
    cluster: PatroniCluster,
    deployment: Deployment,
    watch: EngineWatch,
    route: Route,
    *,
    is_restarted: bool,
    is_long: bool,
) -> None:
    survive(fault, cluster, deployment, watch, route=route.name, is_restarted=is_restarted, is_mended=is_long)
