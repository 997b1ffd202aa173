"""A service of several workers with its own PostgreSQL and Redis, for faults under load."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from flask import Flask

from payments_app.accounts.models import Role
from tests.support.apps import app_with
from tests.support.databases import upgrade
from tests.support.fake_stripe import FakeStripe
from tests.support.fresh_databases import engine_on
from tests.support.invariants import assert_charged_once, assert_kept
from tests.support.people import People
from tests.support.recorded_figures import note
from tests.support.redis_server import RedisServer
from tests.support.retrying_clients import Load, at_work
from tests.support.rows import Rows
from tests.support.service import Service
from tests.support.stripe_apps import stripe_settings

# Consultations for each round of a load; more than clients pay in the few seconds of a round.
CONSULTATIONS_A_ROUND = 1_000

SETTINGS = {
    # Every payment uses Redis: for its lock, the stored response, and the count of the user's payments.
    "PAYMENT_LOCKING": "hybrid",
    "RATELIMIT_ENABLED": "true",
    "RATELIMIT_PAYMENTS": "1000000 per minute",
    # Seconds. No gateway is called over a network here, so that a short lease is enough.
    "GATEWAY_TIMEOUT": "1",
    "REFUND_LEASE": "2",
}

WORKERS = 3


@dataclass
class Deployment:
    """The running servers, and the people who pay."""

    database_url: str
    service: Service
    redis: RedisServer
    people: People
    rows: Rows
    app: Flask
    gateway: FakeStripe | None = None  # None: the service calls none over a network

    @contextmanager
    def beside(self, **environment: str) -> Iterator["Deployment"]:
        """Another service on the same database and Redis, with other settings."""
        with _served(self.database_url, self.redis, **environment) as service:
            yield replace(self, service=service)

    @contextmanager
    def under_load(self, name: str, rounds: int, *, pause_seconds: float = 0) -> Iterator[Load]:
        """While the block runs, people pay. At the end, their responses are compared with the database.

        ``name``: the name under which the figures are recorded. ``pause_seconds``: before each payment of a client.
        """
        first = self.rows.one("SELECT coalesce(max(id), 0) + 1 AS next FROM consultations")["next"]
        last = first + rounds * CONSULTATIONS_A_ROUND - 1
        self.people.add_consultations(Role.PATIENT, first, last)
        paying = at_work(
            self.service.url,
            self.people,
            range(first, last + 1),
            gateway=self.gateway,
            pause_seconds=pause_seconds,
        )
        with paying as load:
            yield load
        assert_kept(load, self.rows, self.app)
        if self.gateway is not None:
            assert_charged_once(load, self.gateway)
        assert self.service.process.poll() is None, "the service itself has ended"
        assert "status=500" not in self.service.log.read_text()
        note(name, **load.figures(), rounds=rounds)


@contextmanager
def _served(database_url: str, redis: RedisServer, **environment: str) -> Iterator[Service]:
    settings = {**SETTINGS, "REDIS_URL": redis.url, **environment}
    with Service.started(database_url, WORKERS, **settings) as service:
        yield service


@contextmanager
def deployed(
    database_url: str, gateway: FakeStripe | None = None, /, *, looked_at: str | None = None, **environment: str
) -> Iterator[Deployment]:
    """On an empty database; ``looked_at``: the URL for the test's own connections, if it is another."""
    if gateway is not None:
        environment = {**stripe_settings(gateway), **environment}
    upgrade(database_url, **environment)
    redis = RedisServer()
    try:
        with (
            app_with(database_url, **{**SETTINGS, **environment}) as app,
            engine_on(looked_at or database_url) as engine,
        ):
            people = People(app)
            with _served(database_url, redis, **environment) as service:
                yield Deployment(database_url, service, redis, people, Rows(engine), app, gateway)
    finally:
        redis.close()
