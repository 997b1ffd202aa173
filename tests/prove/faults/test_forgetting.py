"""A PostgreSQL that forgets what it has acknowledged does not get through the tests of the other faults."""

import pytest

from tests.support.cluster import Cluster, cluster_in_a_folder
from tests.support.deployment import Deployment, deployed
from tests.support.figures import note
from tests.support.persistent import Load
from tests.support.promises import assert_kept
from tests.support.waiting import wait_until

FORGETFUL = {
    # A commit is acknowledged before the log is on the disk. Until then it is in memory that ends with PostgreSQL.
    "synchronous_commit": "off",
    # How often it is written: the longest there is, which is much longer than thirty more payments take.
    "wal_writer_delay": "10s",
    # It is not written for another reason either: not because there is much of it, nor before the pages that it is of.
    "wal_writer_flush_after": "1GB",
    "bgwriter_lru_maxpages": "0",
}


@pytest.mark.long
# A client that is answered "404" for what it has paid ends by an error, as it should.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_postgresql_that_forgets_is_noticed() -> None:
    loads: list[Load] = []
    with cluster_in_a_folder(**FORGETFUL) as cluster, deployed(cluster.url) as deployment:
        with pytest.raises(AssertionError):  # as a rule because of such an answer: it depends on who was about to ask
            crash_under_load(deployment, cluster, loads)

        (load,) = loads
        with pytest.raises(AssertionError, match="acknowledged, and gone") as noticed:
            assert_kept(load, deployment.rows, deployment.app)
        note("faults-forgetting", told=load.strange, noticed=str(noticed.value))


def crash_under_load(deployment: Deployment, cluster: Cluster, loads: list[Load]) -> None:
    """As ``test_a_crashed_postgresql_loses_nothing_that_was_acknowledged`` does, once."""
    with deployment.under_load("faults-forgotten", 1) as load:
        loads.append(load)
        wait_until_log_is_written(cluster)
        load.wait_for_more()
        cluster.stop("immediate")
        cluster.start()
        load.wait_for_more()


def wait_until_log_is_written(cluster: Cluster) -> None:
    """Until it is just over: then nobody writes it for nearly all of the delay."""
    with cluster.connect() as ours:

        def written() -> object:
            return ours.execute("SELECT pg_current_wal_flush_lsn()").fetchall()

        before = written()
        wait_until(lambda: written() != before)
