"""A house for those who are turned away at its doors, and a real server before them."""

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.api.assertions import House
from tests.support.databases import Database
from tests.support.people import People
from tests.support.service import Service


@pytest.fixture(scope="session")
def kept_houses(session_app: Flask) -> list[House]:  # noqa: ARG001  # one list for each database
    """The house that the last test left, or none."""
    return []


@pytest.fixture
def house(request: pytest.FixtureRequest, kept_houses: list[House]) -> House:
    """A house as new. Whoever is refused leaves it so, and building one takes longer than being refused."""
    if not kept_houses or not kept_houses[0].stands():
        people, rows = request.getfixturevalue("people"), request.getfixturevalue("rows")
        kept_houses[:] = [House.built(people, rows)]
    return kept_houses[0]


@pytest.fixture(scope="session")
def session_front(database: Database) -> Iterator[Service]:
    with Service.started(database.url) as service:
        yield service


@pytest.fixture
def front(session_front: Service, people: People) -> Service:  # noqa: ARG001  # its people are in the database
    """gunicorn, for what is refused before any locking strategy has a part in it."""
    return session_front
