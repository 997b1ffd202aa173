"""An app and a real server for requests that are refused."""

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.api.assertions import ApiUnderTest
from tests.support.databases import Database
from tests.support.people import People
from tests.support.service import Service


@pytest.fixture(scope="session")
def prepared_apis(session_app: Flask) -> list[ApiUnderTest]:  # noqa: ARG001  # one list for each database
    """The one that the last test left unchanged, if any."""
    return []


@pytest.fixture
def api(request: pytest.FixtureRequest, prepared_apis: list[ApiUnderTest]) -> ApiUnderTest:
    """Prepared again only if the last test changed something: preparing takes longer than a refused request."""
    if not prepared_apis or not prepared_apis[0].is_unchanged():
        people, rows = request.getfixturevalue("people"), request.getfixturevalue("rows")
        prepared_apis[:] = [ApiUnderTest.prepared(people, rows)]
    return prepared_apis[0]


@pytest.fixture(scope="session")
def session_gunicorn(database: Database) -> Iterator[Service]:
    with Service.started(database.url) as service:
        yield service


@pytest.fixture
def gunicorn(session_gunicorn: Service, people: People) -> Service:  # noqa: ARG001  # its people are in the database
    """gunicorn, for requests that are refused before a locking strategy matters."""
    return session_gunicorn
