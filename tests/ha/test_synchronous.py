"""What a synchronous standby is for: what is lost without one, and what ``synchronous_mode_strict`` means."""

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.ha.surviving import PAUSE_SECONDS
from tests.support.deployment import Deployment, deployed
from tests.support.engine_watch import watched
from tests.support.invariants import assert_kept
from tests.support.patroni import PatroniCluster, patroni_cluster
from tests.support.recorded_figures import note
from tests.support.retrying_clients import Load
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


@pytest.fixture
def cluster() -> Iterator[PatroniCluster]:
    """A cluster of its own: its rows are lost, and its settings changed."""
    with patroni_cluster() as cluster:
        yield cluster


@pytest.fixture
def deployment(cluster: PatroniCluster) -> Iterator[Deployment]:
    with deployed(cluster.url) as deployment:
        yield deployment


# A client that is answered "404" for what it has paid ends by an error, as it should.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_synchronous_mode_acknowledged_payments_are_lost(
    cluster: PatroniCluster, deployment: Deployment
) -> None:
    """And that is noticed: the tests of the other faults could not pass on such a cluster."""
    cluster.configure(synchronous_mode=False)
    wait_until(lambda: cluster.standby_role() == "replica")
    loads: list[Load] = []
    with pytest.raises(AssertionError):  # as a rule because of a 404 for a payment that was acknowledged
        lose_primary_while_its_standby_lags(cluster, deployment, loads)

    (load,) = loads
    with pytest.raises(AssertionError, match="acknowledged, and gone"):
        assert_kept(load, deployment.rows, deployment.app)
    there = {row["key"] for row in deployment.rows.all("SELECT key FROM idempotency_keys")}
    changes = [*load.payments, *load.confirmed, *load.refunds]
    lost = sum(change.key not in there for change in changes)
    note("ha-without-synchronous-mode", lost=lost, acknowledged=len(changes))
    assert lost > 0


def lose_primary_while_its_standby_lags(cluster: PatroniCluster, deployment: Deployment, loads: list[Load]) -> None:
    primary = cluster.primary
    with deployment.under_load("ha-lost", 1, pause_seconds=PAUSE_SECONDS) as load:
        loads.append(load)
        primary.freeze_sender()
        load.wait_for_more(10)  # within the 5 s after which the standby would connect anew
        primary.kill()
        cluster.wait_for_other_primary(primary)
        with suppress(TimeoutError):
            load.wait_for_more()


def test_strict_takes_no_payment_without_a_standby(cluster: PatroniCluster, deployment: Deployment) -> None:
    cluster.configure(synchronous_mode_strict=True)
    standby = cluster.standby
    with (
        watched(cluster.nodes, cluster.primary) as watch,
        deployment.under_load("ha-strict", 1, pause_seconds=PAUSE_SECONDS) as load,
    ):
        standby.kill()
        try:
            killed_at = time.monotonic()
            # What was on both disks is acknowledged before that. Without strict, payments go on after 3 s.
            wait_until(lambda: time.monotonic() > killed_at + 10)
            before = load.acknowledged, len(watch.committed_at)
            wait_until(lambda: time.monotonic() > killed_at + 20)
            assert (load.acknowledged, len(watch.committed_at)) == before
        finally:
            standby.start()
        cluster.wait_until_in_step()
        load.wait_for_more()
