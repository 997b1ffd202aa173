"""Tens of thousands of requests need no line each."""

import logging
from collections.abc import Iterator

import pytest

# So that they say what was not equal.
pytest.register_assert_rewrite(
    "tests.prove.model.comparison", "tests.prove.model.machine", "tests.prove.model.service_under_test"
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """So that the steps which failed are not buried."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)
