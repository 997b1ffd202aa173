"""A service of several workers with a PostgreSQL and a Redis of its own, all of which may be hurt while people pay."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from flask import Flask

from payments_app.accounts.models import Role
from tests.support.apps import app_with
from tests.support.databases import flask
from tests.support.fresh_databases import engine_on
from tests.support.invariants import assert_kept
from tests.support.people import People
from tests.support.recorded_figures import note
from tests.support.redis_server import RedisServer
from tests.support.retrying_clients import Load, at_work
from tests.support.rows import Rows
from tests.support.service import Service

# Consultations for each round of a load; more than are paid in the few seconds of one.
CONSULTATIONS_A_ROUND = 1_000

SETTINGS = {
    # Redis is on the way of every payment: its lock, its copy of the answer, its count of the user's payments.
    "PAYMENT_LOCKING": "hybrid",
    "RATELIMIT_ENABLED": "true",
    "RATELIMIT_PAYMENTS": "1000000 per minute",
    # Seconds. No gateway is asked over a network here, so that a refund whose worker was killed is soon resumed.
    "GATEWAY_TIMEOUT": "1",
    "REFUND_LEASE": "2",
}

WORKERS = 3


@dataclass
class Deployment:
    """What runs, and those who pay."""

    database_url: str
    service: Service
    redis: RedisServer
    people: People
    rows: Rows
    app: Flask

    @contextmanager
    def beside(self, **environment: str) -> Iterator["Deployment"]:
        """Another service on the same database and Redis, with settings of its own."""
        with _served(self.database_url, self.redis, **environment) as service:
            yield replace(self, service=service)

    @contextmanager
    def under_load(self, name: str, rounds: int) -> Iterator[Load]:
        """While the block runs, people pay. In the end, all that they were told is held against the database.

        ``name``: under which the figures are noted.
        """
        first = self.rows.one("SELECT coalesce(max(id), 0) + 1 AS next FROM consultations")["next"]
        last = first + rounds * CONSULTATIONS_A_ROUND - 1
        self.people.add_consultations(Role.PATIENT, first, last)
        with at_work(self.service.url, self.people, range(first, last + 1)) as load:
            yield load
        assert_kept(load, self.rows, self.app)
        assert self.service.process.poll() is None, "the service itself has ended"
        assert "status=500" not in self.service.log.read_text()
        note(name, **load.figures(), rounds=rounds)


@contextmanager
def _served(database_url: str, redis: RedisServer, **environment: str) -> Iterator[Service]:
    settings = {**SETTINGS, "REDIS_URL": redis.url, **environment}
    with Service.started(database_url, workers=WORKERS, **settings) as service:
        yield service


@contextmanager
def deployed(database_url: str, *, looked_at: str | None = None, **environment: str) -> Iterator[Deployment]:
    """On a database that is empty; ``looked_at``: the way to it for those who look on, if it is another one."""
    flask(database_url, "db", "upgrade", **environment)
    redis = RedisServer()
    try:
        with (
            app_with(database_url, **SETTINGS, **environment) as app,
            engine_on(looked_at or database_url) as engine,
        ):
            people = People(app)
            with _served(database_url, redis, **environment) as service:
                yield Deployment(database_url, service, redis, people, Rows(engine), app)
    finally:
        redis.close()
