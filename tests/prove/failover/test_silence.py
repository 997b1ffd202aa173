"""A primary that keeps silent while people pay: with its standby in its place, and while the service stops."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.cluster import OF_THE_TEST, Cluster, cluster_in_a_folder
from tests.support.deployment import Deployment, deployed
from tests.support.frozen import thaw
from tests.support.pgbouncer import BEHIND_PGBOUNCER, PgBouncer, pgbouncer_before
from tests.support.recorded_figures import note
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long  # each waits for the real deadline

# Seconds that no payment is taken after the database answers again, or another has taken its place.
RECOVERY_SECONDS = 5

# Seconds for a stop: the least that common supervisors wait before they kill is 10 s (Docker).
STOP_SECONDS = 10

# Seconds in which each of the service's threads waits for the silent database.
SETTLED_SECONDS = 0.5


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_in_a_folder() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pgbouncer(cluster: Cluster) -> Iterator[PgBouncer]:
    with pgbouncer_before(cluster, server_connections=20) as pgbouncer:
        yield pgbouncer


def test_a_frozen_primary_is_answered_for_and_once_it_continues_all_goes_on(cluster: Cluster) -> None:
    with deployed(cluster.url) as deployment, deployment.under_load("silence-frozen", 1) as load:
        everything = cluster.freeze()
        try:
            load.wait_for_retries()
        finally:
            thaw(*everything)
        began = time.monotonic()
        load.wait_for_more(1)
        recovered = time.monotonic() - began
        load.wait_for_more()
    assert recovered < RECOVERY_SECONDS


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_behind_pgbouncer_a_silent_primary_is_answered_for(fault: str, cluster: Cluster, pgbouncer: PgBouncer) -> None:
    past_it = f"{cluster.url}&application_name={OF_THE_TEST}"
    with (
        deployed(pgbouncer.url, looked_at=past_it, **BEHIND_PGBOUNCER) as deployment,
        deployment.under_load(f"silence-pgbouncer-{fault}", 1) as load,
    ):
        if fault == "killed":
            cluster.stop("immediate")
            load.wait_for_retries(30)
            cluster.start()
        else:
            everything = cluster.freeze()
            try:
                load.wait_for_retries(30)
            finally:
                thaw(*everything)
        began = time.monotonic()
        load.wait_for_more(1)
        recovered = time.monotonic() - began
        load.wait_for_more()
    note(f"silence-pgbouncer-{fault}-recovery", seconds=round(recovered, 1))
    assert recovered < RECOVERY_SECONDS


def test_a_stop_ends_although_every_thread_waits_for_the_database(cluster: Cluster) -> None:
    with deployed(cluster.url) as deployment:
        stopped_after = stop_while_frozen(deployment, cluster)
    note("silence-stop", seconds=round(stopped_after, 1))
    assert stopped_after < STOP_SECONDS


def stop_while_frozen(deployment: Deployment, cluster: Cluster) -> float:
    """Seconds from TERM to the end of gunicorn, while more requests than there are threads wait for the database."""
    service, patient = deployment.service, deployment.people.patient
    deployment.people.add_consultations("patient", 1_000_001, 1_000_100)
    is_sent = threading.Semaphore(0)

    def pay(number: int) -> None:
        is_sent.release()
        try:
            service.pay(patient, 1_000_001 + number, key=f"stop-{number}")
        except OSError:
            return  # the service has ended

    everything = cluster.freeze()
    try:
        with ThreadPoolExecutor(60) as clients:
            for number in range(60):
                clients.submit(pay, number)
            for _ in range(60):
                is_sent.acquire()
            time.sleep(SETTLED_SECONDS)
            began = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: service.process.poll() is not None)
            return time.monotonic() - began
    finally:
        thaw(*everything)
