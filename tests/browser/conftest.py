"""A real Chromium and a real service, whose database has the demo's data and nothing else."""

from collections.abc import Iterator

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page

from tests.support.browser import chromium_started, visitor
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.service import Service


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with chromium_started() as browser:
        yield browser


@pytest.fixture(scope="session")
def session_service(database: Database) -> Iterator[Service]:
    with Service.started(database.url) as service:
        yield service


@pytest.fixture(scope="session")
def session_commands(database: Database) -> Iterator[CommandRunner]:
    with commands_on(database.url) as commands:
        yield commands


@pytest.fixture
def service(session_service: Service, session_commands: CommandRunner, app: Flask) -> Service:  # noqa: ARG001  # it empties the database
    """Two gunicorn worker processes, and the freshly seeded demo."""
    session_commands.ok("demo", "seed")
    return session_service


@pytest.fixture
def page(chromium: Browser, service: Service) -> Iterator[Page]:
    """The first tab of a new browser profile; at the end no tab may have had a fault."""
    with visitor(chromium, service.url) as page:
        yield page
