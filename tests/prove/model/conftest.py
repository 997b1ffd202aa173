"""Tens of thousands of requests need no line each."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """So that the steps which failed are not buried."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)
