"""A PostgreSQL that forgets what it has acknowledged does not get through the tests of the other faults."""

import pytest

from tests.support.cluster import Cluster, cluster_in_a_folder
from tests.support.deployment import Deployment, deployed
from tests.support.invariants import assert_kept
from tests.support.recorded_figures import note
from tests.support.retrying_clients import Load

# Pages are written at checkpoints alone, and there is none but when it is stopped: what the log has since then is
# nowhere else.
FORGETFUL = {"bgwriter_lru_maxpages": "0", "checkpoint_timeout": "1d"}


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
        # The last checkpoint is of a moment at which nobody writes, so that what is left fits together.
        cluster.stop()
        cluster.start()
        load.wait_for_more()
        cluster.stop("immediate")
        cluster.lose_log()
        cluster.start()
        load.wait_for_more()
