"""Debian's PgBouncer in transaction mode, in front of a PostgreSQL.

``python -m tests.support.pgbouncer COMMAND...`` runs a command, such as pytest, whose PostgreSQL is behind one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from tests.support.cluster import cluster_in_a_folder
from tests.support.databases import ROOT
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# The environment of an app or a command whose DATABASE_URL leads to a PgBouncer.
BEHIND_PGBOUNCER = {"DATABASE_POOLER": "transaction"}

# Connections to the server: fewer than clients have to PgBouncer, so that clients share each.
SERVER_CONNECTIONS = 4

# What a test adds to the end of deploy/pgbouncer.ini, which is in the section [pgbouncer]: its own ports, users without
# passwords, no files outside its folder, and its own server for every database. The last of two equal settings counts.
_ADDED = """
listen_port = {port}
unix_socket_dir =
logfile =
pidfile =
auth_type = any
auth_file =
default_pool_size = {server_connections}
{more}

[databases]
* = host={server.host} port={server.port} {login}
payments = host={server.host} port={server.port} {login}
"""


class Server(Protocol):
    """An address that leads to a PostgreSQL."""

    host: str
    port: int


class PgBouncer:
    """A PgBouncer that a test can kill and start again."""

    def __init__(
        self,
        folder: Path,
        server: Server,
        server_connections: int = SERVER_CONNECTIONS,
        login: str = "user=postgres",
        **more: str,
    ) -> None:
        """``login``: with which it connects to the server. ``more``: settings unlike deploy/pgbouncer.ini."""
        self.port = free_port()
        self.url = self.url_of("postgres")
        self._settings = folder / "pgbouncer.ini"
        added = _ADDED.format(
            server=server,
            port=self.port,
            login=login,
            server_connections=server_connections,
            more="\n".join(f"{name} = {value}" for name, value in more.items()),
        )
        self._settings.write_text((ROOT / "deploy/pgbouncer.ini").read_text() + added)
        self._log = folder / "pgbouncer.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url_of(self, database: str) -> str:
        """Of a database of the server; PgBouncer asks for no password."""
        return f"postgresql+psycopg://postgres@/{database}?host=127.0.0.1&port={self.port}"

    def start(self) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("no PgBouncer: apt-get install pgbouncer")
        options = ["-u", "nobody"] if os.getuid() == 0 else []  # it does not run as root
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [program, "-q", *options, str(self._settings)], stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(self._answers, self._log.read_text)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection to PgBouncer, which has one to the server only during a transaction."""
        return psycopg.connect(host="127.0.0.1", port=self.port, user="postgres", dbname="postgres")

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def pgbouncer_before(server: Server, server_connections: int = SERVER_CONNECTIONS, **more: str) -> Iterator[PgBouncer]:
    """``more``: ``login``, and settings, as of PgBouncer."""
    with tempfile.TemporaryDirectory(prefix="payments-pgbouncer-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # it runs as another user if root starts it
        pgbouncer = PgBouncer(folder, server, server_connections, **more)
        try:
            yield pgbouncer
        finally:
            pgbouncer.kill()


def main(command: list[str]) -> int:
    """Run the command with a PostgreSQL behind a PgBouncer in TEST_DATABASE_URL."""
    with cluster_in_a_folder() as server, pgbouncer_before(server, server_connections=20) as pgbouncer:
        environment = {**os.environ, **BEHIND_PGBOUNCER, "TEST_DATABASE_URL": pgbouncer.url}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
