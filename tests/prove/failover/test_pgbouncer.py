"""Behind a PgBouncer in transaction mode, where each transaction may be on another connection to the server."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.cluster import LAZY_LOG, OF_THE_TEST, Cluster, cluster_in_a_folder
from tests.support.commands import commands_on
from tests.support.databases import flask
from tests.support.deployment import Deployment, deployed
from tests.support.pgbouncer import BEHIND_PGBOUNCER, SERVER_CONNECTIONS, PgBouncer, pgbouncer_before

# PostgreSQL's own values are 0, none: only our transactions have others.
TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_in_a_folder(**LAZY_LOG) as cluster:
        cluster.make_careless()  # each transaction asks for more than the defaults, whatever they are
        yield cluster


@pytest.fixture(scope="module")
def pgbouncer(cluster: Cluster) -> Iterator[PgBouncer]:
    with pgbouncer_before(cluster) as pgbouncer:
        yield pgbouncer


@pytest.fixture(scope="module")
def deployment(cluster: Cluster, pgbouncer: PgBouncer) -> Iterator[Deployment]:
    past_it = f"{cluster.url}&application_name={OF_THE_TEST}"
    with deployed(pgbouncer.url, looked_at=past_it, **BEHIND_PGBOUNCER) as deployment:
        yield deployment


def test_many_clients_share_few_connections_and_nothing_is_lost(
    deployment: Deployment, cluster: Cluster, effort: int
) -> None:
    with deployment.under_load("pgbouncer", effort) as load:
        for _ in range(effort):
            load.wait_for_more(60)
        shared = cluster.connections()
    assert 0 < shared <= SERVER_CONNECTIONS
    assert load.retried == 0
    assert {refund.status for refund in load.refunds} == {200}


@pytest.mark.long
def test_a_killed_pgbouncer_is_waited_for(deployment: Deployment, pgbouncer: PgBouncer, effort: int) -> None:
    with deployment.under_load("pgbouncer-killed", effort) as load:
        for _ in range(effort):
            pgbouncer.kill()
            load.wait_for_retries()
            pgbouncer.start()
            load.wait_for_more()


@pytest.mark.long
def test_a_server_that_crashes_behind_it_loses_nothing(deployment: Deployment, cluster: Cluster, effort: int) -> None:
    with deployment.under_load("pgbouncer-postgresql-crashed", effort) as load:
        for number in range(effort):
            cluster.stop("immediate") if number % 2 else cluster.kill()
            load.wait_for_retries()
            cluster.start()
            load.wait_for_more()


@pytest.mark.usefixtures("deployment")
def test_commands_and_migrations_leave_the_timeouts_of_others_alone(cluster: Cluster, pgbouncer: PgBouncer) -> None:
    flask(pgbouncer.url, "db", "upgrade", **BEHIND_PGBOUNCER)
    assert cluster.times_said("SET LOCAL can only be used in transaction blocks") == 0
    with commands_on(pgbouncer.url, **BEHIND_PGBOUNCER) as commands:
        commands.ok("payments", "audit")

    with ExitStack() as transactions:
        for _ in range(SERVER_CONNECTIONS):  # each stays open, and so has a connection of its own
            asked = transactions.enter_context(pgbouncer.connect())
            assert {name: asked.execute(f"SHOW {name}").fetchone() for name in TIMEOUTS} == dict.fromkeys(
                TIMEOUTS, ("0",)
            )
