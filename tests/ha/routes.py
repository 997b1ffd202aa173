"""How a service reaches the primary: by both nodes in its ``DATABASE_URL``, or by PgBouncer and HAProxy."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.support.deployment import Deployment, deployed
from tests.support.fake_stripe import FakeStripe
from tests.support.haproxy import haproxy_before
from tests.support.patroni import PatroniCluster
from tests.support.patroni_node import DATABASE, PASSWORD
from tests.support.pgbouncer import BEHIND_PGBOUNCER, pgbouncer_before

Addresses = list[tuple[str, int]]

# Seconds. The gateway is in this process, which is busy with clients: nothing here tests its timeouts.
UNHURRIED = {"GATEWAY_TIMEOUT": "5", "REFUND_LEASE": "6"}


@dataclass(frozen=True)
class Route:
    """``name``: in the recorded figures. ``text``: for the table.

    ``deployed``: a running service; it takes the addresses at which each node's PostgreSQL is reached.
    """

    name: str
    text: str
    deployed: Callable[[PatroniCluster, Addresses, FakeStripe], AbstractContextManager[Deployment]]


@contextmanager
def _direct(cluster: PatroniCluster, addresses: Addresses, gateway: FakeStripe) -> Iterator[Deployment]:
    with deployed(cluster.url_of(addresses), gateway, looked_at=cluster.url, **UNHURRIED) as deployment:
        yield deployment


@contextmanager
def _by_pgbouncer(cluster: PatroniCluster, addresses: Addresses, gateway: FakeStripe) -> Iterator[Deployment]:
    login = f"user={DATABASE} password={PASSWORD}"
    with (
        haproxy_before(cluster.nodes, addresses) as balancer,
        pgbouncer_before(balancer, server_connections=20, login=login) as pgbouncer,
        deployed(
            pgbouncer.url_of(DATABASE), gateway, looked_at=cluster.url, **UNHURRIED, **BEHIND_PGBOUNCER
        ) as deployment,
    ):
        yield deployment


ROUTES = (
    Route("direct", "both nodes in `DATABASE_URL`", _direct),
    Route("pgbouncer", "PgBouncer and HAProxy", _by_pgbouncer),
)
