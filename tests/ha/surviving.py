"""A fault while people pay: nothing acknowledged is lost or doubled, and payments go on soon after the engine does.

The engine's own outage is measured in the same run, by commits on the nodes themselves.
"""

import os
import signal
import time

from tests.ha.faults import Fault
from tests.support.deployment import Deployment
from tests.support.engine_watch import EngineWatch, longest_gap
from tests.support.patroni import PatroniCluster
from tests.support.recorded_figures import note
from tests.support.waiting import wait_until

# Seconds by which the service may be out longer than the engine: it notices a dead connection (the deadline of a
# statement), looks for the new primary, and the clients try again.
LONGER_SECONDS = 5

# Seconds before each payment of a client. Twelve clients then leave the machine time for Patroni and etcd, which share
# it here; a lease that is renewed late would be another fault.
PAUSE_SECONDS = 0.2


def survive(
    fault: Fault,
    cluster: PatroniCluster,
    deployment: Deployment,
    watch: EngineWatch,
    *,
    route: str,
    is_restarted: bool = False,
    unreachable_seconds: float = 0,
    is_mended: bool = True,
) -> None:
    """Pay during the fault and, if ``is_mended``, until the lost node is a synchronous standby again.

    ``route``: how the service reaches the primary, for the recorded figures. ``is_restarted``: the service gets new
    workers while the fault lasts. ``unreachable_seconds``: for which the primary cannot be reached and is not replaced.
    """
    name = f"ha-{route}-{fault.name}{'-restarted' if is_restarted else ''}"
    workers = deployment.service.workers()
    with deployment.under_load(name, 1, pause_seconds=PAUSE_SECONDS) as load:
        began = time.monotonic()
        with fault.happens(cluster):
            if is_restarted:
                os.kill(deployment.service.process.pid, signal.SIGHUP)
            wait_until(lambda: time.monotonic() >= began + fault.lasts_seconds)
            watch.wait_for_more()
            if not unreachable_seconds:
                load.wait_for_more()
        if is_mended:
            cluster.wait_until_in_step()
        load.wait_for_more()
        ended = time.monotonic()
    engine = longest_gap(watch.committed_at, began, ended)
    service = longest_gap(load.acknowledged_at, began, ended)
    note(f"{name}-outage", engine_seconds=round(engine, 1), service_seconds=round(service, 1))
    assert service <= max(engine, unreachable_seconds) + LONGER_SECONDS
    if is_restarted:
        wait_until(lambda: not workers & deployment.service.workers())
    else:
        assert deployment.service.workers() == workers, "the service needed a restart"
