"""Fixtures for every test: a SQLite file and a PostgreSQL 18, both with tables made by the migrations."""

import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy import Engine
from werkzeug.routing import Rule
from xdist.scheduler import LoadFileScheduling

from payments_app.accounts import passwords
from payments_app.locking.locks import Strategy
from tests.support import databases as database_settings
from tests.support.apps import app_with, engine_of, forget
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import SERVER_SETTINGS, Database, empty
from tests.support.dialects import DIALECTS
from tests.support.fake_paymongo import FakePayMongo
from tests.support.fake_stripe import FakeStripe
from tests.support.fresh_databases import fresh_database
from tests.support.paymongo_apps import PayMongoApp, fake_paymongo, paymongo_settings
from tests.support.people import People
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows
from tests.support.service import Service
from tests.support.small_disk import SHARED_MEMORY, SMALL_BYTES
from tests.support.stripe_apps import StripeApp, fake_stripe, stripe_settings

# Folders and files; the longest of all first.
LONGEST = (
    *("ha", "model", "prove", "concurrency", "browser", "deploy", "faults", "health"),
    *("test_audit.py", "test_migrations.py", "test_commands.py", "test_config.py", "test_clock_jumps.py"),
    *("test_deadline.py", "test_no_network_in_transactions.py"),
)
SHARING = ("tests/concurrency", "tests/deploy")  # folders whose files share services of many settings
# `make test` runs these on both databases: what they test is where the two differ.
ON_BOTH = (*("db", "locking", "idempotency", "events"), *("test_constraints.py", "test_migrations.py"))
LONG_FACTOR = 20  # how much more `make prove` tries than `make test-all`

# Production's cost of a hash would slow down each login and each command that adds a user.
passwords._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

# Every app has the same routes; to compile them is most of the time of ``create_app``.
_compile_builder = Rule._compile_builder
_builders: dict[tuple[Any, ...], Any] = {}


def _builder_of(rule: Rule, append_unknown: bool = True) -> Any:
    key = rule.subdomain, rule.host, rule.rule, tuple((rule.defaults or {}).items()), append_unknown
    if key not in _builders:
        _builders[key] = _compile_builder(rule, append_unknown)
    return _builders[key]


Rule._compile_builder = _builder_of  # type: ignore[assignment, method-assign]

# Every test may have a database of its own, which is a copy: with fsync, it takes five times as long. No test cuts the
# power; those that kill PostgreSQL start a server of their own, with fsync.
SERVER_SETTINGS.update(fsync="off", full_page_writes="off")
# SQLite syncs as in production, and so do the servers of tests that kill PostgreSQL; in memory that costs nothing.
SHARED_MEMORY_BYTES = shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else 0
if SHARED_MEMORY_BYTES > SMALL_BYTES:
    database_settings.SQLITE_PARENT = SHARED_MEMORY
# A server takes some 100 MiB; up to a dozen run at the same time.
if SHARED_MEMORY_BYTES >= 4 * 1024**3:
    database_settings.POSTGRESQL_PARENT = SHARED_MEMORY


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="try much more, as `make prove` does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        chosen = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = chosen
    _mark_repeats_on_sqlite(items)
    # The longest tests come first. At the end, one worker would run them while the others have nothing to do.
    items.sort(key=lambda item: [folder not in item.path.parts for folder in LONGEST])


def _mark_repeats_on_sqlite(items: list[pytest.Item]) -> None:
    """Mark as ``repeat`` the tests on SQLite that also run on PostgreSQL, except those of ``ON_BOTH``."""
    names = {item.nodeid for item in items}
    for item in items:
        twin = item.nodeid.replace("sqlite", "postgresql")
        if twin != item.nodeid and twin in names and not any(part in ON_BOTH for part in item.path.parts):
            item.add_marker(pytest.mark.repeat)


class _ByFile(LoadFileScheduling):  # type: ignore[misc]  # it has no types
    """The tests of one file go to one worker; the files of SHARING do so together, so that each service starts once."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return next((folder for folder in SHARING if file.startswith(f"{folder}/")), file)


def pytest_xdist_auto_num_workers() -> int:
    """Three workers for two cores: for a third of its time a worker waits, for a server, a browser or a deadline."""
    return max(1, len(os.sched_getaffinity(0)) * 3 // 2)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Replaces ``--dist loadfile`` by ``_ByFile``; None lets xdist choose."""
    return _ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_configure() -> None:
    """What collecting loads is kept to the end: looking for garbage in it would take a tenth of its time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Modules loaded by now are never garbage: the collector would spend a tenth of the tests' time on them."""
    gc.freeze()
    gc.enable()
    # After every 700 new objects, as Python has it, the collector would take another 3 % of their time.
    gc.set_threshold(20_000)


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether the tests run in their long form."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def effort(*, is_long: bool) -> int:
    """How many times more than usual to try."""
    return LONG_FACTOR if is_long else 1


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, "pytest.CallInfo[None]", None]:
    """With ``CI=true`` a skipped test fails, so that no test goes missing unnoticed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"


@pytest.fixture(scope="session")
def databases() -> Iterator[Callable[[str], Database]]:
    """One migrated database of each dialect, copied from the template on first use."""
    made: dict[str, Database] = {}
    with ExitStack() as stack:

        def get(dialect: str) -> Database:
            if dialect not in made:
                made[dialect] = stack.enter_context(fresh_database(dialect))
            return made[dialect]

        yield get


@pytest.fixture(scope="session", params=DIALECTS)
def database(request: pytest.FixtureRequest, databases: Callable[[str], Database]) -> Database:
    """Each of the databases in turn."""
    return databases(request.param)


@pytest.fixture(scope="session")
def apps_on() -> Iterator[Callable[..., Flask]]:
    """Apps by the URL of their database and their settings. Each is made once and keeps its compiled statements."""
    made: dict[tuple[str, frozenset[tuple[str, str]]], Flask] = {}
    with ExitStack() as stack:

        def get(database_url: str, **settings: str) -> Flask:
            key = database_url, frozenset(settings.items())
            if key not in made:
                made[key] = stack.enter_context(app_with(database_url, **settings))
            forget(made[key])
            return made[key]

        yield get


@pytest.fixture(scope="session")
def session_app(apps_on: Callable[..., Flask], database: Database) -> Flask:
    return apps_on(database.url)


@pytest.fixture
def app(session_app: Flask) -> Flask:
    """The app on an empty database."""
    with session_app.app_context():
        empty(session_app.extensions["sqlalchemy"].engine)
    return session_app


@pytest.fixture
def engine(app: Flask) -> Engine:
    return engine_of(app)


@pytest.fixture
def rows(engine: Engine) -> Rows:
    """Counts and reads rows behind the app's back."""
    return Rows(engine)


@pytest.fixture
def people(app: Flask) -> People:
    """A patient with consultations 1 to 20, another patient with 21, an admin and a booking system."""
    return People(app, patient=range(1, 21), other=range(21, 22))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that a test may pause or kill; the test also resumes or starts it."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="session", params=list(Strategy))
def strategy(request: pytest.FixtureRequest) -> Strategy:
    """Each of the locking strategies in turn."""
    return Strategy(request.param)


@pytest.fixture(scope="session")
def session_service(database: Database, strategy: Strategy, redis_server: RedisServer) -> Iterator[Service]:
    with Service.started(database.url, PAYMENT_LOCKING=strategy, **redis_server.settings) as service:
        yield service


@pytest.fixture
def service(session_service: Service, redis_server: RedisServer, people: People) -> Service:  # noqa: ARG001  # its people are in the database
    """Two gunicorn worker processes on the database of ``app``; both have answered a request."""
    # The database was emptied, and SQLite gives the same ids again, so that Redis's copies would belong to other rows.
    redis_server.client.flushall()
    return session_service


@pytest.fixture(scope="session")
def apps(apps_on: Callable[..., Flask], database: Database) -> Callable[..., Flask]:
    """Apps with other settings on the same database."""
    return partial(apps_on, database.url)


@pytest.fixture(scope="session")
def session_fake_stripe() -> Iterator[FakeStripe]:
    with fake_stripe() as fake:
        yield fake


@pytest.fixture(scope="session")
def session_stripe_app(apps: Callable[..., Flask], session_fake_stripe: FakeStripe) -> tuple[FakeStripe, Flask]:
    return session_fake_stripe, apps(**stripe_settings(session_fake_stripe))


@pytest.fixture
def stripe_app(stripe_apps: Callable[..., StripeApp]) -> StripeApp:
    """An empty fake Stripe, an app that takes cards through it, and the people as clients of that app."""
    return stripe_apps()


@pytest.fixture
def stripe_apps(
    apps: Callable[..., Flask], session_fake_stripe: FakeStripe, people: People
) -> Callable[..., StripeApp]:
    """Apps that take cards through one fake Stripe, which is empty, and the people as clients of each."""
    session_fake_stripe.reset()

    def get(**settings: str) -> StripeApp:
        app = apps(**stripe_settings(session_fake_stripe, **settings))
        return StripeApp(session_fake_stripe, app, people.seen_by(app))

    return get


@pytest.fixture(scope="session")
def session_fake_paymongo() -> Iterator[FakePayMongo]:
    with fake_paymongo() as fake:
        yield fake


@pytest.fixture
def paymongo_app(apps: Callable[..., Flask], session_fake_paymongo: FakePayMongo, people: People) -> PayMongoApp:
    """An app that takes all methods through a fake PayMongo, which is empty, and the people as its clients."""
    session_fake_paymongo.reset()
    app = apps(**paymongo_settings(session_fake_paymongo))
    return PayMongoApp(session_fake_paymongo, app, people.seen_by(app))


@pytest.fixture(scope="session")
def session_command_runner(database: Database) -> Iterator[CommandRunner]:
    with commands_on(database.url) as commands:
        yield commands


@pytest.fixture
def commands(session_command_runner: CommandRunner, people: People) -> CommandRunner:  # noqa: ARG001  # on an empty database
    """Runs commands on the database of the people."""
    return session_command_runner


@pytest.fixture
def audited(rows: Rows) -> Iterator[None]:
    """After the test, ``payments audit`` would find no violation."""
    yield
    assert rows.violations() == []
