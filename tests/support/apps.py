"""More apps on the database of a test, with other settings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask
from sqlalchemy import Engine

from config import Settings
from payments_app import create_app, redis_client
from payments_app.api.rate_counts import Counts
from payments_app.gateways import registry

# Settings that production requires; SQLite is allowed, so that tests can run it on both databases.
PRODUCTION = {
    "APP_ENV": "production",
    "SECRET_KEY": "what-signs-cursors-in-tests-0123456789",
    "JWT_SECRET_KEY": "what-signs-bearer-tokens-in-tests-9876",
    "ALLOW_SQLITE": "1",
}


def testing(database_url: str, **more: str) -> dict[str, str]:
    """The environment of an app under test, without rate limits: most tests send requests faster than they allow."""
    # The pooler in front of the database that TEST_DATABASE_URL names, if there is one.
    pooler = {"DATABASE_POOLER": os.environ.get("DATABASE_POOLER", "")}
    return {"APP_ENV": "testing", "DATABASE_URL": database_url, "RATELIMIT_ENABLED": "false", **pooler, **more}


def make_app(database_url: str, **settings: str) -> Flask:
    """An app with these settings, whose connections somebody has to close."""
    return create_app(Settings.from_environment(testing(database_url, **settings)))


@contextmanager
def app_with(database_url: str, **settings: str) -> Iterator[Flask]:
    """An app with these settings; its connections are closed at the end."""
    app = make_app(database_url, **settings)
    try:
        yield app
    finally:
        engine_of(app).dispose()


def forget(app: Flask) -> None:
    """Let it forget what it knows of Redis and of gateways, and what it has counted by itself."""
    redis_client.init_app(app)
    registry.init_app(app)
    app.extensions["rate_limits"] = Counts()


def engine_of(app: Flask) -> Engine:
    with app.app_context():
        engine: Engine = app.extensions["sqlalchemy"].engine
    return engine
