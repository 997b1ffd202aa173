"""Fixtures for each file of races, which names its shop: the fixture ``shared_shop``."""

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine

from tests.support.apps import engine_of
from tests.support.schedules import Stage
from tests.support.snapshots import Shop, Snapshot


@pytest.fixture(scope="module")
def stage(shared_shop: Shop) -> Iterator[Stage]:
    engine = engine_of(shared_shop.app)
    watching = create_engine(engine.url, isolation_level="AUTOCOMMIT")
    with Stage.on(engine, watching) as stage:
        yield stage
    watching.dispose()


@pytest.fixture(scope="module")
def blank(shared_shop: Shop) -> Snapshot:
    """The state before any payment."""
    return Snapshot(shared_shop)


@pytest.fixture
def shop(shared_shop: Shop, blank: Snapshot) -> Shop:
    blank.put_back()
    return shared_shop
