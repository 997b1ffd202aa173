"""The cases in the order of a round, and the services and databases that they need."""

from collections.abc import Callable, Set
from contextlib import ExitStack
from functools import cached_property

from sqlalchemy import create_engine, text

from bench import services
from bench.cases import (
    READ,
    Case,
    Target,
    create_case,
    growing_case,
    page_case,
    pgbench_case,
    reading_case,
    storm_case,
)
from bench.contract_check import require_contract
from bench.environment import SECRETS, Environment, Store, million_store, sqlite_store
from bench.requests import creates, list_page, shows
from bench.services import Running
from payments_app import clock
from payments_app.api.cursors import sign_position
from tests.support.apps import app_with
from tests.support.redis_server import RedisServer

PAGE = 15
DEEP_PAGE = 60_000


class Plan:
    """Makes cases. Starts each service and database when the first case needs it."""

    def __init__(self, environment: Environment, stack: ExitStack) -> None:
        self._environment = environment
        self._stack = stack

    def make(self, names: Set[str]) -> dict[str, Case]:
        if names & NEED_MILLION:
            _ = self._million  # copies the empty database, so no service may be connected yet
        return {name: maker(self) for name, maker in CASES.items() if name in names}

    @cached_property
    def _million(self) -> Store:
        return million_store(self._environment)

    @cached_property
    def _ours(self) -> Target:
        return self._on_empty(self._stack.enter_context(services.ours(self._environment.empty.url)))

    @cached_property
    def _ours_at_million(self) -> Target:
        running = self._stack.enter_context(services.ours(self._million.url))
        return Target(running, self._million, self._environment.postgresql_pid)

    def _on_empty(self, running: Running) -> Target:
        require_contract(running.url, self._environment.empty)
        return Target(running, self._environment.empty, self._environment.postgresql_pid)

    def limit(self) -> Case:
        return pgbench_case("pgbench, the same eight statements: the limit", self._environment)

    def create(self) -> Case:
        return create_case("create", self._ours)

    def replay(self) -> Case:
        return reading_case("replay of a key", self._ours, lambda store: creates(store.patient, READ), expected=201)

    def show(self) -> Case:
        return reading_case(
            "GET of a payment", self._ours, lambda store: shows(store.patient, _ids(store)), expected=200
        )

    def list_payments(self) -> Case:
        return reading_case("list of 15", self._ours, lambda store: [list_page(store.patient)], expected=200)

    def storm(self) -> Case:
        return storm_case("storm of 50 clicks, until all have a response", self._ours)

    def redis_lock(self) -> Case:
        redis_server = RedisServer()
        self._stack.callback(redis_server.close)
        peer = services.flask_peer(self._environment, "redis_lock", REDIS_URL=redis_server.url)
        return storm_case("the same storm, lock in Redis", self._on_empty(self._stack.enter_context(peer)))

    def plain_flask(self) -> Case:
        peer = services.flask_peer(self._environment, "plain_flask")
        return create_case("create, plain Flask", self._on_empty(self._stack.enter_context(peer)))

    def fastapi_orm(self) -> Case:
        peer = services.fastapi_peer(self._environment, "fastapi_orm")
        return create_case("create, FastAPI + async ORM", self._on_empty(self._stack.enter_context(peer)))

    def fastapi_asyncpg(self) -> Case:
        peer = services.fastapi_peer(self._environment, "fastapi_asyncpg")
        return create_case("create, FastAPI + asyncpg by hand", self._on_empty(self._stack.enter_context(peer)))

    def sqlite(self) -> Case:
        store = self._stack.enter_context(sqlite_store())
        running = self._stack.enter_context(services.ours(store.url))
        require_contract(running.url, store)
        return create_case("create on SQLite", Target(running, store))

    def million(self) -> Case:
        return growing_case("create beside 1,000,000 payments", self._ours_at_million)

    def page_1(self) -> Case:
        return page_case("page 1 of 1,000,000 payments", self._ours_at_million, None)

    def page_60000(self) -> Case:
        return page_case("page 60,000 of 1,000,000 payments", self._ours_at_million, _cursor(self._million, DEEP_PAGE))


CASES: dict[str, Callable[[Plan], Case]] = {
    "limit": Plan.limit,
    "create": Plan.create,
    "million": Plan.million,
    "sqlite": Plan.sqlite,
    "plain-flask": Plan.plain_flask,
    "fastapi-orm": Plan.fastapi_orm,
    "fastapi-asyncpg": Plan.fastapi_asyncpg,
    "replay": Plan.replay,
    "show": Plan.show,
    "list": Plan.list_payments,
    "page-1": Plan.page_1,
    "page-60000": Plan.page_60000,
    "storm": Plan.storm,
    "redis-lock": Plan.redis_lock,
}
NEED_MILLION = {"million", "page-1", "page-60000"}


def _ids(store: Store) -> list[int]:
    return list(store.column("SELECT id FROM payments ORDER BY id"))


def _cursor(store: Store, page: int) -> str:
    """The cursor of a page, as the service would return it with the previous page."""
    engine = create_engine(store.url)
    with engine.connect() as connection:
        last_before = connection.execute(
            text("SELECT created_at, id FROM payments ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET :rows"),
            {"rows": PAGE * (page - 1) - 1},
        ).one()
    engine.dispose()
    with app_with(store.url, **SECRETS) as app, app.app_context():
        return sign_position("payments", [clock.to_text(last_before.created_at), last_before.id])
