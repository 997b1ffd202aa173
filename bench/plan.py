"""The cases in the order of a round, and the services and databases that they need."""

from collections.abc import Callable, Set
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property

from sqlalchemy import create_engine, text

from bench import services
from bench.cases import (
    READ,
    Case,
    Target,
    changing_case,
    create_case,
    growing_case,
    page_case,
    pgbench_case,
    reading_case,
    storm_case,
)
from bench.contract_check import require_contract, require_duties, require_life
from bench.environment import SECRETS, Environment, Store, Stored, million_store, sqlite_store
from bench.gateway import Gateway, gateway
from bench.life import life_case
from bench.requests import (
    confirms,
    consultations,
    creates,
    list_100,
    list_page,
    paid_webhooks,
    part_refunds,
    shows,
)
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
        return self._with_duties(self._stack.enter_context(services.ours(self._environment.empty.url)))

    @cached_property
    def _ours_at_million(self) -> Target:
        running = self._stack.enter_context(services.ours(self._million.url))
        return Target(running, self._million, self._environment.postgresql_pid)

    @cached_property
    def _redis(self) -> RedisServer:
        redis = RedisServer()
        self._stack.callback(redis.close)
        return redis

    @cached_property
    def _deployed(self) -> Target:
        settings = services.as_deployed(self._redis)
        running = self._stack.enter_context(services.ours(self._environment.empty.url, settings))
        return replace(self._with_duties(running), redis=self._redis)

    @cached_property
    def _granian(self) -> Target:
        return self._on_empty(self._stack.enter_context(services.granian(self._environment.empty.url)))

    @cached_property
    def _gateway(self) -> Gateway:
        return self._stack.enter_context(gateway())

    def _on_empty(self, running: Running) -> Target:
        require_contract(running.url, self._environment.empty)
        return Target(running, self._environment.empty, self._environment.postgresql_pid)

    def _with_duties(self, running: Running) -> Target:
        require_duties(running, self._environment.empty)
        return self._on_empty(running)

    def _with_lives(self, running: Running) -> Target:
        require_life(running.url, self._environment.empty)
        return self._on_empty(running)

    def _show(self, label: str, target: Target) -> Case:
        return reading_case(label, target, lambda store: shows(store.patient, _ids(store)), expected=200)

    def limit(self) -> Case:
        return pgbench_case("pgbench, the same eight statements: the limit", self._environment)

    def create(self) -> Case:
        return create_case("create", self._ours)

    def replay(self) -> Case:
        return reading_case("replay of a key", self._ours, lambda store: creates(store.patient, READ), expected=201)

    def show(self) -> Case:
        return self._show("GET of a payment", self._ours)

    def list_payments(self) -> Case:
        return reading_case("list of 15", self._ours, lambda store: [list_page(store.patient)], expected=200)

    def deployed(self) -> Case:
        return create_case("create, as deployed", self._deployed)

    def deployed_replay(self) -> Case:
        target = self._deployed
        return reading_case("replay, as deployed", target, lambda store: creates(store.patient, READ), expected=201)

    def deployed_show(self) -> Case:
        return self._show("GET, as deployed", self._deployed)

    def granian(self) -> Case:
        return create_case("create, by granian", self._granian)

    def granian_show(self) -> Case:
        return self._show("GET, by granian", self._granian)

    def confirm(self) -> Case:
        by_hand = Stored("bank_transfer", "manual", "pending")
        return changing_case("confirm, by hand", self._ours, by_hand, confirms, becomes="completed")

    def webhook(self) -> Case:
        by_card = Stored("stripe", "stripe", "pending")
        return changing_case("webhook that completes", self._ours, by_card, paid_webhooks, becomes="completed")

    def refund(self) -> Case:
        paid = Stored("stripe", "sandbox", "completed")
        return changing_case("refund of a part", self._ours, paid, part_refunds, becomes="partially_refunded")

    def consultations(self) -> Case:
        return reading_case(
            "consultations of a patient", self._ours, lambda store: [consultations(store.patient)], expected=200
        )

    def list_100(self) -> Case:
        return reading_case("an admin's list of 100", self._ours, lambda store: [list_100(store.admin)], expected=200)

    def life(self) -> Case:
        settings = services.with_gateway(self._gateway)
        running = self._stack.enter_context(services.ours(self._environment.empty.url, settings))
        return life_case("whole life", self._with_lives(running), self._gateway)

    def deployed_life(self) -> Case:
        settings = services.as_deployed(self._redis) | services.with_gateway(self._gateway)
        running = self._stack.enter_context(services.ours(self._environment.empty.url, settings))
        return life_case(
            "whole life, as deployed", replace(self._with_lives(running), redis=self._redis), self._gateway
        )

    def life_orm(self) -> Case:
        peer = services.fastapi_peer(
            self._environment, "fastapi_orm_life", **services.with_gateway(self._gateway), **services.WEBHOOK_SECRET
        )
        running = self._stack.enter_context(peer)
        return life_case("whole life, FastAPI + async ORM", self._with_lives(running), self._gateway)

    def storm(self) -> Case:
        return storm_case("storm of 50 clicks, until all have a response", self._ours)

    def redis_lock(self) -> Case:
        peer = services.flask_peer(self._environment, "redis_lock", REDIS_URL=self._redis.url)
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

    def asyncpg_duties(self) -> Case:
        peer = services.fastapi_peer_with_duties(self._environment)
        target = self._with_duties(self._stack.enter_context(peer))
        return create_case("create, FastAPI + asyncpg with the same duties", target)

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
    "deployed": Plan.deployed,
    "deployed-replay": Plan.deployed_replay,
    "deployed-show": Plan.deployed_show,
    "deployed-life": Plan.deployed_life,
    "life": Plan.life,
    "life-orm": Plan.life_orm,
    "limit": Plan.limit,
    "create": Plan.create,
    "million": Plan.million,
    "sqlite": Plan.sqlite,
    "granian": Plan.granian,
    "plain-flask": Plan.plain_flask,
    "fastapi-orm": Plan.fastapi_orm,
    "fastapi-asyncpg": Plan.fastapi_asyncpg,
    "asyncpg-duties": Plan.asyncpg_duties,
    "replay": Plan.replay,
    "show": Plan.show,
    "granian-show": Plan.granian_show,
    "list": Plan.list_payments,
    "list-100": Plan.list_100,
    "consultations": Plan.consultations,
    "confirm": Plan.confirm,
    "webhook": Plan.webhook,
    "refund": Plan.refund,
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
