"""A house for those who are turned away at its doors."""

import pytest
from flask import Flask

from tests.api.refusals import House


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
