"""Ways to the database for readers of the feed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.support.cluster import cluster_in_a_folder
from tests.support.databases import Database, upgrade
from tests.support.pgbouncer import BEHIND_PGBOUNCER, pgbouncer_before


@dataclass(frozen=True)
class Route:
    """``url`` is for readers, ``past_pooler`` for writers, who keep more transactions open than a pooler allows."""

    name: str
    url: str
    past_pooler: str
    settings: dict[str, str] = field(default_factory=dict)


@pytest.fixture(params=["postgresql", "sqlite", pytest.param("pgbouncer", marks=pytest.mark.long)])
def route(request: pytest.FixtureRequest, databases: Callable[[str], Database]) -> Iterator[Route]:
    if request.param == "pgbouncer":
        with behind_pgbouncer() as route:
            yield route
        return
    url = databases(request.param).url
    yield Route(request.param, url, url)


@contextmanager
def behind_pgbouncer() -> Iterator[Route]:
    """Two server connections for three readers, so that each transaction may be on another one."""
    with cluster_in_a_folder() as cluster, pgbouncer_before(cluster, server_connections=2) as pgbouncer:
        upgrade(cluster.url)
        yield Route("pgbouncer", pgbouncer.url, cluster.url, BEHIND_PGBOUNCER)
