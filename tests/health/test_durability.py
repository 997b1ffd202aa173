"""Whether the server keeps what it has acknowledged: said by ``check``, and by ``/readyz`` in production."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from tests.support.apps import PRODUCTION, app_with, engine_of
from tests.support.client import client_of
from tests.support.cluster import Cluster, cluster_in_a_folder
from tests.support.commands import commands_on
from tests.support.waiting import wait_until

# The service's role, which sees less of the server than a superuser.
ROLE = "ordinary"


@pytest.fixture(scope="module")
def primary() -> Iterator[Cluster]:
    with cluster_in_a_folder() as cluster:
        with cluster.connect() as administrator:
            administrator.execute(f"CREATE ROLE {ROLE} LOGIN")
            administrator.execute(f"GRANT CREATE ON SCHEMA public TO {ROLE}")
        with commands_on(url_of(cluster)) as commands:
            commands.ok("db", "upgrade")
        yield cluster


@pytest.fixture
def standby(primary: Cluster) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="payments-standby-") as name:
        Path(name).chmod(0o755)  # the server is another user, if it is started by root
        standby = Cluster(Path(name))
        standby.make_standby_of(primary)
        try:
            standby.start()
            wait_until(lambda: primary.is_followed("async"))
            yield standby
        finally:
            standby.close()


def url_of(cluster: Cluster) -> str:
    return cluster.url.replace("//postgres@", f"//{ROLE}@")


def set_and_wait(cluster: Cluster, **settings: str) -> None:
    cluster.set(**settings)
    cluster.reload()

    def is_set() -> bool:
        with cluster.connect() as ours:
            return all(ours.execute(f"SHOW {name}").fetchone() == (value,) for name, value in settings.items())

    wait_until(is_set)


def said(cluster: Cluster, **settings: str) -> list[str]:
    """The lines of the command."""
    with commands_on(url_of(cluster), **settings) as commands:
        return [line for line in commands.run("check").output.splitlines() if line.split()[1] == "durability"]


def readyz(app: Flask) -> tuple[int, str | None, object]:
    answer = client_of(app).get("/readyz")
    return answer.status_code, answer.json.get("parts", {}).get("durability"), answer.json.get("data")


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
def test_a_server_that_a_power_cut_damages_takes_no_payment_in_production(primary: Cluster, name: str) -> None:
    set_and_wait(primary, **{name: "off"})
    with app_with(url_of(primary), **PRODUCTION) as app, app_with(url_of(primary)) as elsewhere:
        while_off = readyz(app)
        in_development = readyz(elsewhere)
        line, note = said(primary, **PRODUCTION), said(primary)
        set_and_wait(primary, **{name: "on"})
        afterwards = readyz(app)

    assert while_off == (503, None, {"failed": ["durability"]})
    assert in_development == (200, None, None)
    assert afterwards == (200, "ok", None)
    assert (len(line), len(note)) == (1, 1)
    assert line[0].startswith(f"bad   durability   {name} is off: ")
    assert note[0].startswith(f"note  durability   {name} is off: ")
    assert said(primary, **PRODUCTION) == []


@pytest.mark.usefixtures("standby")
def test_a_standby_that_no_commit_waits_for_is_said_and_stops_nothing(primary: Cluster) -> None:
    with app_with(url_of(primary), **PRODUCTION) as app:
        asynchronous = readyz(app)
        (line,) = said(primary)
        with primary.connect() as administrator:
            administrator.execute(f"GRANT pg_monitor TO {ROLE}")
        (seen_by_a_monitor,) = said(primary)
        set_and_wait(primary, synchronous_standby_names="standby")
        engine_of(app).dispose()
        app.extensions["readiness"].invalidate()
        synchronous = readyz(app)
        set_and_wait(primary, synchronous_standby_names="")
        with primary.connect() as administrator:
            administrator.execute(f"REVOKE pg_monitor FROM {ROLE}")

    assert asynchronous == (200, "degraded", None)
    assert line == seen_by_a_monitor
    assert line.startswith("note  durability   a standby follows, and synchronous_standby_names is empty: ")
    assert synchronous == (200, "ok", None)
