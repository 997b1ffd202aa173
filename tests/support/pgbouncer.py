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

import psycopg
import pytest

from tests.support.cluster import Cluster, cluster_in_a_folder
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# The environment of an app or a command whose DATABASE_URL leads to a PgBouncer.
BEHIND_PGBOUNCER = {"DATABASE_POOLER": "transaction"}

# The timeouts that the service sets on each connection if there is no pooler.
TIMEOUTS = {
    "statement_timeout": "5s",
    "lock_timeout": "500ms",
    "idle_in_transaction_session_timeout": "10s",
}

# Connections to the server: fewer than clients have to PgBouncer, so that clients share each.
SERVER_CONNECTIONS = 4

_SETTINGS = """
[databases]
* = host={server.host} port={server.port} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {server_connections}
max_client_conn = 500
server_login_retry = 1
"""


class PgBouncer:
    """A PgBouncer that a test can kill and start again."""

    def __init__(self, folder: Path, server: Cluster, server_connections: int = SERVER_CONNECTIONS) -> None:
        self.port = free_port()
        self.url = f"postgresql+psycopg://postgres@/postgres?host=127.0.0.1&port={self.port}"
        self._settings = folder / "pgbouncer.ini"
        self._settings.write_text(
            _SETTINGS.format(server=server, port=self.port, server_connections=server_connections)
        )
        self._log = folder / "pgbouncer.log"
        self._process: subprocess.Popen[bytes] | None = None
        with server.connect() as administrator:
            for name, value in TIMEOUTS.items():
                administrator.execute(f"ALTER ROLE postgres SET {name} = '{value}'")
        self.start()

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
def pgbouncer_before(server: Cluster, **more: int) -> Iterator[PgBouncer]:
    with tempfile.TemporaryDirectory(prefix="payments-pgbouncer-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # it runs as another user if root starts it
        pgbouncer = PgBouncer(folder, server, **more)
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
