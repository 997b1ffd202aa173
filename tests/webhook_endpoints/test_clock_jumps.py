"""The clock of the senders jumps during an attempt, and back during another.

On PostgreSQL it is the server's clock, which all senders share; on SQLite that of their machine.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from payments_app import clock as real_clock
from tests.support.apps import app_with, engine_of
from tests.support.clock import Clock
from tests.support.cluster import Cluster
from tests.support.databases import empty, upgrade
from tests.support.fresh_databases import engine_on, fresh_database
from tests.support.people import People
from tests.support.receiver import Receiver
from tests.support.rows import Rows
from tests.support.slow_sender import HAS_LOOKED
from tests.support.small_disk import SHARED_MEMORY
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.support.warm_python import start_python
from tests.webhook_endpoints.conftest import PRIVATE, Webhooks

MONTH_HOURS = 30 * 24
JUMP_SAID = re.compile(r"clock jumped\b.*\bseconds=(-?\d+)")


@dataclass(frozen=True)
class ClockedDatabase:
    """A migrated database, and the clock by which senders send that have this ``environment``."""

    url: str
    clock: Clock
    environment: dict[str, str]


@pytest.fixture
def clocked(request: pytest.FixtureRequest) -> Iterator[ClockedDatabase]:
    """A new one for each test: processes of a server whose clock is set back see it one after the other."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="payments-clock-")))
        folder.chmod(0o755)  # PostgreSQL, which is another user, reads the time in it
        clock = Clock(folder / "clock")
        if request.param == "sqlite":
            yield ClockedDatabase(stack.enter_context(fresh_database("sqlite")).url, clock, clock.environment)
            return
        cluster = Cluster(folder, environment=clock.environment)
        cluster.make(fsync="off")
        stack.callback(cluster.close)
        cluster.start()
        upgrade(cluster.url)
        yield ClockedDatabase(cluster.url, clock, {})


@pytest.fixture
def webhooks(clocked: ClockedDatabase, receiver: Receiver) -> Iterator[Webhooks]:
    # Looks by the app's connections would take SQLite's write lock, many times a second.
    with app_with(clocked.url, **PRIVATE) as app, engine_on(clocked.url) as engine:
        empty(engine_of(app))
        yield Webhooks(app, People(app, patient=range(1, 21), other=range(21, 22)), receiver, Rows(engine))


@contextmanager
def sending(clocked: ClockedDatabase, log: Path) -> Iterator[None]:
    environment = {**os.environ, "DATABASE_URL": clocked.url, **clocked.environment}
    process = start_python("tests.support.slow_sender", environment=environment, output=log)
    try:
        yield
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)
        for left in SHARED_MEMORY.glob(f"*faketime_s??_{process.pid}"):  # libfaketime's; a killed process leaves it
            left.unlink()


def hours_jumped(log: Path) -> int:
    """As a sender has seen it in all. PostgreSQL's processes jump one after the other: it may see a jump repeatedly."""
    return round(sum(map(int, JUMP_SAID.findall(log.read_text()))) / 3600)


# In the short form, on PostgreSQL, because there the server has a clock too.
@pytest.mark.parametrize(
    ("clocked", "hours"),
    [
        ("postgresql", MONTH_HOURS),
        pytest.param("postgresql", 1, marks=pytest.mark.long),
        pytest.param("sqlite", MONTH_HOURS, marks=pytest.mark.long),
        pytest.param("sqlite", 1, marks=pytest.mark.long),
    ],
    indirect=["clocked"],
)
def test_a_clock_that_jumps_loses_nothing_and_sends_nothing_twice(
    clocked: ClockedDatabase, webhooks: Webhooks, tmp_path: Path, hours: int
) -> None:
    receiver = webhooks.receiver
    ids = {path: webhooks.endpoint(path) for path in ("/held/wait", "/free/ok", "/a/strict", "/failing/500")}
    receiver.secrets["/a/strict"] = ids["/a/strict"][1]
    logs = [tmp_path / "one", tmp_path / "other"]

    def pay(consultation_id: int) -> None:
        assert webhooks.people.patient.pay(consultation_id).status_code == 201

    def said() -> str:
        return "\n".join(log.read_text() for log in logs)

    def wait_for(position: int, *paths: str) -> None:
        wait_until(lambda: all(position in webhooks.positions_at(path) for path in paths), said)

    def wait_until_delivered(positions: int, *paths: str) -> None:
        wanted = ["delivered"] * positions
        wait_until(lambda: all(webhooks.statuses(ids[path][0]) == wanted for path in paths), said)

    def jump(hours: int) -> None:
        clocked.clock.set(hours)
        wait_until(lambda: all(hours_jumped(log) == hours for log in logs), said)

    with sending(clocked, logs[0]), sending(clocked, logs[1]):
        wait_until(lambda: said().count(HAS_LOOKED) == len(logs), said)
        pay(1)
        wait_for(1, *ids)
        jump(hours)  # during the attempt at /held/wait, whose lease seems to be over now
        pay(2)
        wait_for(2, "/free/ok", "/a/strict")
        receiver.released.set()
        wait_until_delivered(2, "/held/wait")
        receiver.released.clear()
        pay(3)
        wait_for(3, *ids)
        jump(0)  # the lease seems to end later than any of ours
        pay(4)
        wait_for(4, "/free/ok", "/a/strict", "/failing/500")
        receiver.released.set()
        if hours == 1:
            # What was refused, because it was signed in the future, is due in an hour: as if that had passed.
            now = webhooks.rows.moment(real_clock.now())
            webhooks.rows.execute("UPDATE webhook_deliveries SET next_attempt_at = :now WHERE attempts > 0", now=now)
        wait_until_delivered(4, "/held/wait", "/free/ok", "/a/strict")

    assert webhooks.positions_at("/held/wait") == webhooks.positions_at("/free/ok") == [1, 2, 3, 4]
    assert sorted(each.event["position"] for each in receiver.accepted) == [1, 2, 3, 4]
    assert webhooks.positions_at("/a/strict").count(2) > 1
    assert set(webhooks.positions_at("/failing/500")) == {1, 2, 3, 4}
    shown = webhooks.shown(ids["/failing/500"][0])
    assert (shown["is_enabled"], shown["disabled_reason"]) == (True, None)
    assert datetime.fromisoformat(str(shown["failing_since"])) <= real_clock.now()
