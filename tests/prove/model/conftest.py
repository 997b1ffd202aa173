"""Logs less: the model sends tens of thousands of requests."""

import logging
from collections.abc import Iterator

import pytest

# So that their assertions show both values.
pytest.register_assert_rewrite(
    "tests.prove.model.comparison",
    "tests.prove.model.machine",
    "tests.prove.model.pages_machine",
    "tests.prove.model.service_under_test",
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Without these lines the failed steps are easy to find."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)
