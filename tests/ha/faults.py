"""What happens to the cluster: each fault begins when its block is entered, and is mended when the block is left."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.support.patroni import PatroniCluster

Happening = Callable[[PatroniCluster], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """``what``: in words, for the table. ``lasts_seconds``: how long to wait at least before it is mended."""

    name: str
    what: str
    happens: Happening
    lasts_seconds: float = 0


@contextmanager
def postgresql_killed(cluster: PatroniCluster) -> Iterator[None]:
    """Patroni goes on, and lets the other node take over; or this one again, if it has restarted first."""
    cluster.primary.kill_postgresql()
    yield


@contextmanager
def primary_killed(cluster: PatroniCluster) -> Iterator[None]:
    primary = cluster.primary
    primary.kill()
    try:
        yield
        cluster.wait_for_other_primary(primary)
    finally:
        primary.start()


@contextmanager
def primary_frozen(cluster: PatroniCluster) -> Iterator[None]:
    primary = cluster.primary
    primary.freeze()
    try:
        yield
        cluster.wait_for_other_primary(primary)
    finally:
        primary.thaw()


@contextmanager
def switched_over(cluster: PatroniCluster) -> Iterator[None]:
    primary, standby = cluster.primary, cluster.standby
    primary.switch_over(standby)
    yield
    cluster.wait_for_other_primary(primary)


@contextmanager
def standby_killed(cluster: PatroniCluster) -> Iterator[None]:
    standby = cluster.standby
    standby.kill()
    try:
        yield
    finally:
        standby.start()


@contextmanager
def standby_frozen(cluster: PatroniCluster) -> Iterator[None]:
    standby = cluster.standby
    standby.freeze()
    try:
        yield
    finally:
        standby.thaw()


@contextmanager
def etcd_gone(cluster: PatroniCluster) -> Iterator[None]:
    primary = cluster.primary
    cluster.etcd.kill()
    try:
        yield
    finally:
        cluster.etcd.start()
    assert cluster.primary is primary


@contextmanager
def unhurt(_cluster: PatroniCluster) -> Iterator[None]:
    yield


# The lease of a primary is 20 s: what Patroni does about a frozen standby or without etcd, it has done after 30 s.
FAULTS = (
    Fault("postgresql-killed", "`kill -9` of the primary's PostgreSQL", postgresql_killed),
    Fault("primary-killed", "the primary's host lost: `kill -9` of PostgreSQL and Patroni", primary_killed),
    Fault("primary-frozen", "the primary's host frozen: SIGSTOP of PostgreSQL and Patroni", primary_frozen, 30),
    Fault("switchover", "switchover, as for maintenance", switched_over),
    Fault("standby-killed", "the standby's host lost", standby_killed, 10),
    Fault("standby-frozen", "the standby's host frozen", standby_frozen, 30),
    Fault("etcd-gone", "etcd gone for 30 s", etcd_gone, 30),
)

# The network between the service and the primary, which the cluster does not notice. The test that cuts it does so by
# its own network.
CUT = Fault("network-cut", "the network between the service and the primary cut for 10 s", unhurt, 10)

ALL_FAULTS = (*FAULTS, CUT)
